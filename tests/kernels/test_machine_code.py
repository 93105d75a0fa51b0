"""The machine code of the tiles of quantized formats, for processors that this machine need not be: LLVM
makes it for any of them.
"""

import re

import llvmlite.binding as llvm
import pytest
from llvmlite import ir

from rwkv_engine.kernels import int8_amx, pointers
from rwkv_engine.kernels.code_tiles import layout_of, tiles_of
from rwkv_engine.kernels.int8_levels import LEVELS
from rwkv_engine.kernels.vectors import I64
from rwkv_engine.numbers.code_layout import INT4, INT5

#: processor -> (triple, level, the instruction, or its two forms, that must do the work)
PROCESSORS = {
    "cortex-a76": ("aarch64-unknown-linux-gnu", "dotprod", "sdot"),
    "neoverse-v1": ("aarch64-unknown-linux-gnu", "dotprod", "sdot"),
    "apple-m1": ("arm64-apple-macosx", "dotprod", "sdot"),
    "cortex-a72": ("aarch64-unknown-linux-gnu", "portable", ("smlal", "smull")),
    "znver4": ("x86_64-unknown-linux-gnu", "vnni", "vpdpbusd"),
    "cascadelake": ("x86_64-unknown-linux-gnu", "vnni", "vpdpbusd"),
    "alderlake": ("x86_64-unknown-linux-gnu", "avxvnni", "vpdpbusd"),
    "haswell": ("x86_64-unknown-linux-gnu", "avx2", "vpmaddwd"),
}
#: of that instruction, how many multiply a block of 64 inputs by 16 rows, for inputs of 16 bits
NUMBER = {"dotprod": 128, "portable": 256, "vnni": 32, "avxvnni": 64, "avx2": 64}
#: what reads or writes the stack, on either architecture; %rbp is a register like others, as no frame is kept
STACK = re.compile(r"\[sp\b|\[x29\b|\[fp\b|\(%[re]sp\b")


@pytest.fixture(scope="module", autouse=True)
def back_ends():
    """Every architecture that this LLVM can compile for, and its assembler's printer."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()


def inner_loop(processor, tile):
    """The instructions of a tile's loop over blocks, as the assembler writes them."""
    return loop_of(assembly(PROCESSORS[processor][0], processor, 11, tile.emit))


def inner_loops(processor, tile):
    """The loop of `inner_loop`; of a tile that has one for short strips and one for long ones, both."""
    return loops_of(assembly(PROCESSORS[processor][0], processor, 11, tile.emit))


def assembly(triple, processor, count, emit):
    """The lines of a function of `count` int64 whose body is what `emit` makes of them."""
    module = ir.Module("tile")
    module.triple = triple
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [I64] * count), "tile")
    builder = ir.IRBuilder(function.append_basic_block("entry"))
    emit(builder, function.args)
    builder.ret_void()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=processor, opt=3)
    compiled = llvm.parse_assembly(str(module))
    compiled.verify()
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(compiled, passes)
    lines = [
        line.split("//")[0].split("#")[0].strip() for line in machine.emit_assembly(compiled).splitlines()
    ]
    return [line for line in lines if line]


def loop_of(lines):
    """The only loop of `loops_of`."""
    (loop,) = loops_of(lines)
    return loop


def loops_of(lines):
    """From each label that a later line jumps back to, to that jump: of loops one inside the other, the outer one."""
    labels = {line[:-1]: number for number, line in enumerate(lines) if line.endswith(":")}
    jumps = [
        (number, re.fullmatch(r"(?:b\.?\w*|j\w+|cbnz|tbnz)\s+(?:.*,\s*)?(\S+)", line))
        for number, line in enumerate(lines)
    ]
    back = [
        (labels[jump[1]], number) for number, jump in jumps if jump and labels.get(jump[1], number) < number
    ]
    return [
        lines[first:last]
        for first, last in sorted(back)
        if not any((a, b) != (first, last) and a <= first and last <= b for a, b in back)
    ]


#: (processor, a tile of its level)
TILES = [(name, tile) for name, (_, level, _) in PROCESSORS.items() for tile in LEVELS[level].tiles]


@pytest.mark.parametrize(("processor", "tile"), TILES, ids=lambda x: getattr(x, "tokens", x))
def test_the_inner_loop_is_made_of_the_levels_instruction(processor, tile):
    _, level, instruction = PROCESSORS[processor]
    words = [word for line in inner_loop(processor, tile) for word in line.split()]
    used = sum(word.startswith(instruction) for word in words)
    assert used == NUMBER[level] * tile.strips * tile.tokens


#: level -> (what looks codes of 4 bits up, how many times for the 128 quads of rows and inputs of a block)
LOOKUP = {
    "vnni": ("vpshufb", 16),
    "avxvnni": ("vpshufb", 32),
    "avx2": ("vpshufb", 64),
    "dotprod": ("tbl", 64),
    "portable": ("tbl", 64),  # AArch64 also widens scales by `tbl`
}
#: levels for which nothing is prefetched far ahead
ARM = ("dotprod", "portable")
#: where nothing may be kept on the stack; tiles of 4 tokens have more addresses than registers for them
SPILLS = {"znver4": 0, "apple-m1": 0}
ADDRESSES = 0.025
#: (processor, bits of a code, a tile of its level)
CODE_TILES = [
    (name, bits, tile)
    for name, (_, level, _) in PROCESSORS.items()
    for bits, table in ((4, INT4), (5, INT5))
    for tile in tiles_of(layout_of(table))[level]
]


@pytest.mark.parametrize(("processor", "bits", "tile"), CODE_TILES, ids=lambda x: getattr(x, "tokens", x))
def test_the_inner_loop_looks_codes_up_and_multiplies(processor, bits, tile):
    loops, level = inner_loops(processor, tile), PROCESSORS[processor][1]
    assert len(loops) == (2 if pointers.FAR and level not in ARM and tile.strips * tile.tokens == 1 else 1)
    for loop in loops:
        looks_codes_up_and_multiplies(loop, processor, bits, tile)


def looks_codes_up_and_multiplies(loop, processor, bits, tile):
    _, level, instruction = PROCESSORS[processor]
    words = [word for line in loop for word in line.split()]
    lookup, times = LOOKUP[level]
    if bits == 5 and lookup == "vpshufb":  # one in each half of the table
        times *= 2
    assert sum(word.startswith(lookup) for word in words) >= times * tile.strips
    used = sum(word.startswith(instruction) for word in words)
    assert used == NUMBER[level] * tile.strips * tile.tokens
    spilled = [line for line in loop if STACK.search(line)]
    if tile.tokens == 4:
        assert not [line for line in spilled if "mm" in line]  # of numbers, none
        assert len(spilled) <= ADDRESSES * len(loop)
    else:
        assert len(spilled) <= SPILLS.get(processor, {"dotprod": 0.02}.get(level, 0.18)) * len(loop)


@pytest.mark.parametrize(("table", "lines"), [(INT4, [9, 2]), (INT5, [11, 2]), (None, [2])])
def test_a_single_token_prefetches_long_strips_whole(table, lines, monkeypatch):
    monkeypatch.setattr(pointers, "FAR", 8192)
    tile = tiles_of(layout_of(table))["vnni"][-1] if table else LEVELS["vnni"].tiles[-1]
    assert [
        sum(line.startswith("prefetcht1") for line in loop) for loop in inner_loops("znver4", tile)
    ] == lines


def test_a_tile_fetches_what_follows_to_the_second_cache():
    loop = inner_loop("znver4", LEVELS["vnni"].tiles[0])
    assert any(line.startswith("prefetcht1") for line in loop)


@pytest.mark.parametrize(
    ("processor", "tile"),
    [pair for pair in TILES if PROCESSORS[pair[0]][1] == "dotprod"],
    ids=lambda x: getattr(x, "tokens", x),
)
def test_the_inner_loop_keeps_everything_in_registers(processor, tile):
    assert not [line for line in inner_loop(processor, tile) if STACK.search(line)]


@pytest.mark.parametrize("tile", LEVELS["vnni"].tiles, ids=lambda tile: f"{tile.strips}x{tile.tokens}")
@pytest.mark.parametrize("processor", ["znver4", "cascadelake"])
def test_the_tiles_of_avx512_all_but_fit_into_the_registers(processor, tile):
    loop = inner_loop(processor, tile)
    spilled = [line for line in loop if STACK.search(line)]
    assert sum("mm" in line for line in spilled) < 0.02 * len(loop)  # numbers
    assert len(spilled) < 0.04 * len(loop)


def test_the_amx_loop_multiplies_by_tiles_and_keeps_its_sums_in_registers():
    lines = assembly("x86_64-unknown-linux-gnu", "sapphirerapids", 11, int8_amx.TILE.emit)
    loop = loop_of(lines)
    used = {
        name: sum(line.startswith(name) for line in loop)
        for name in ("tileloadd", "tdpbssd", "tilestored", "vfmadd", "vcvtdq2ps")
    }
    # of a block of 64 inputs, that is two groups: weights and two planes of inputs each; results of either
    # plane; sums of 16 tokens
    assert used == {"tileloadd": 6, "tdpbssd": 4, "tilestored": 4, "vfmadd": 32, "vcvtdq2ps": 32}
    assert not [
        line for line in loop if re.match(r"vmov\S+\s+%zmm\d+, ", line)
    ]  # no sum goes to memory before the last block
    assert not any(line.startswith("call") for line in lines)


@pytest.mark.parametrize("name", ["ldtilecfg", "tilerelease"])
def test_tile_registers_are_configured_and_released(name):
    emit = {"ldtilecfg": int8_amx.emit_configure, "tilerelease": int8_amx.emit_release}[name]
    lines = assembly("x86_64-unknown-linux-gnu", "sapphirerapids", 0, lambda builder, _: emit(builder))
    assert sum(line.startswith(name) for line in lines) == 1
