"""CUDA C++ to what g++ takes: shared memory, inline PTX, the entry point; cuda_cpu.h does the rest."""

import functools
import re

_DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:(?:__align__|alignas)\s*\([^()]*\)\s*)?([\w:<> ]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
_KERNEL = re.compile(r'\bextern\s+"C"\s+(?=__global__\b)')
_TOKEN = re.compile(
    r"//[^\n]*|/\*.*?\*/|'(?:\\.|[^'\\])'"
    r'|"(?:\\.|[^"\\])*"|\b(?:asm|__asm__)\b(?:\s+(?:volatile|__volatile__)\b)?\s*\(',
    re.S,
)
_STRING = re.compile(r'"((?:\\.|[^"\\])*)"')
_OPERAND = re.compile(r'\s*(?:\[\w+\]\s*)?"[^"]*"\s*\((.*)\)\s*', re.S)

_MMA = {
    f"mma.sync.aligned.{shape}.row.col.f32.{kind}.{kind}.f32": function
    for shape, kind, function in [
        ("m16n8k16", "f16", "mma_k16<__half>"),
        ("m16n8k16", "bf16", "mma_k16<__nv_bfloat16>"),
        ("m16n8k8", "f16", "mma_k8<__half>"),
        ("m16n8k8", "bf16", "mma_k8<__nv_bfloat16>"),
        ("m16n8k8", "tf32", "mma_tf32"),
    ]
}
_LDMATRIX = {
    f"ldmatrix.sync.aligned.m8n8.x{n}{turned}.shared.b16": f"ldmatrix_x{n}{turned.replace('.', '_')}"
    for n in (1, 2, 4)
    for turned in ("", ".trans")
}
# The PTX that is known: each instruction and its function in emulator::ptx, which takes the same operands.
INSTRUCTIONS = {
    **_MMA,
    **_LDMATRIX,
    "cp.async.ca.shared.global": "copy_async",
    "cp.async.cg.shared.global": "copy_async_16",
    "cp.async.commit_group": "copy_commit",
    "cp.async.wait_group": "copy_wait",
    "cp.async.wait_all": "copy_wait_all",
    "cvt.rna.tf32.f32": "cvt_tf32",
}


def _closing(text, start):
    """The index of the parenthesis that closes the one before ``start``."""
    depth, i = 1, start
    while i < len(text):
        if text[i] == '"':
            i = _STRING.match(text, i).end()
            continue
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if not depth:
            return i
        i += 1
    raise ValueError("an asm statement without its closing parenthesis")


def _split(text, separator):
    """The parts of ``text`` between separators that stand outside of strings and brackets."""
    parts, depth, last, i = [], 0, 0, 0
    while i < len(text):
        if text[i] == '"':
            i = _STRING.match(text, i).end()
            continue
        depth += {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}.get(text[i], 0)
        if text[i] == separator and not depth:
            parts.append(text[last:i])
            last = i + 1
        i += 1
    return [*parts, text[last:]]


def _call(statement):
    """The C++ of one asm statement: ``"template" : outputs : inputs``."""
    template, *groups = _split(statement, ":")
    template = " ".join(re.sub(r"\\[nt]", " ", "".join(_STRING.findall(template))).split()).removesuffix(";")
    operands = [_OPERAND.fullmatch(o) for group in groups[:2] for o in _split(group, ",") if o.strip()]
    name, _, rest = template.partition(" ")
    # The hint of how much to fetch into the second-level cache changes no result.
    function = INSTRUCTIONS.get(re.sub(r"\.L2::\d+B$", "", name))
    if function is None or ";" in rest or None in operands:
        # It may stand in a branch that is never taken: a fault only where it would run.
        return f'emulator_fault("line %d: PTX that is not emulated: %s", __LINE__, "{template}")'
    values = [f"({o[1].strip()})" for o in operands]
    given = [
        re.sub(r"%(\d+)", lambda m: values[int(m[1])], token.strip(" []"))
        for token in re.sub(r"[{}]", "", rest).split(",")
        if token.strip()
    ]
    return f"emulator::ptx::{function}({', '.join(['__CUDA_ARCH__ / 10', '__LINE__', *given])})"


def _without_asm(source):
    out, last = [], 0
    for token in _TOKEN.finditer(source):
        if token.start() < last or not token[0].endswith("(") or token[0][0] in "\"/'":
            continue
        end = _closing(source, token.end())
        statement = source[token.end() : end]
        call = _call(statement.replace("\\\n", " ")).replace("\n", " ")
        # Lines keep their numbers, also inside of a macro.
        lines = ("\\\n" if "\\\n" in statement else "\n") * source.count("\n", token.start(), end)
        out += [source[last : token.start()], call, lines]
        last = end + 1
    return "".join([*out, source[last:]])


def _bound(source, entry):
    """What ``__launch_bounds__`` of the entry says, as C++; "0" where it says nothing."""
    found = re.search(
        rf"__launch_bounds__\s*\(((?:[^()]|\([^()]*\))*)\)\s*(?:void\s+)?{re.escape(entry)}\s*\(", source
    )
    return _split(found[1], ",")[0].strip() if found else "0"


@functools.lru_cache(maxsize=1024)
def translate(source, entry, arch):
    """
    The C++ of a CUDA source, with the launcher of one of its kernels.

    Parameters
    ----------
    source : str
        CUDA C++, with its own headers inlined.
    entry : str
        The name of an ``extern "C" __global__`` function.
    arch : int
        The value of ``__CUDA_ARCH__``, such as 900.

    Returns
    -------
    str
        To be compiled after cuda_cpu.h.
    """
    body = _DYNAMIC.sub(r"\1* \2 = (\1*)emulator_dynamic_shared();", _without_asm(source))
    # All of it is in an unnamed namespace: what the entry does not use is left out, also its shared memory.
    body = _KERNEL.sub("", body)
    return (
        f"#define __CUDA_ARCH__ {arch}\n"
        f'namespace {{\n#line 1 "kernel.cu"\n{body}\n'
        f'}}\n#line 1 "launcher"\nEMULATED_KERNEL({entry}, {_bound(source, entry)})\n'
    )
