// AMX: products of bfloat16 matrices in the tile registers of Sapphire Rapids and later. All else is AVX-512's.
//
// A tile register holds 16 rows of 64 bytes. One instruction multiplies the inputs of up to 16 tokens (32 columns of each)
// with 32 columns of a block of weights, whose layout (formats.h) is the one that the instruction asks for, and adds the
// products to a register of (token, row) sums. Sums of one token do not depend on the other tokens of its tile, so every
// number of tokens, one included, is multiplied here: a token gets the same bits in any batch.

#include "kernels.h"
#include "lanes_avx512.h"

#include <sys/syscall.h>
#include <unistd.h>

namespace bluejay {
namespace avx512 {
namespace {
#include "tile_shapes.h"
#include "tiles.h"

constexpr int COLUMNS = 32;  // that one instruction multiplies

/// Shapes of the tile registers: 0 to 3 are sums, the next ones, up to `last_input`, inputs, and the rest weights.
void configure(int tokens, int last_input) {
    TileShapes shapes;
    for (int i = 0; i <= last_input; ++i) shapes.rows[i] = uint8_t(tokens);
    shapes.load();
}

struct Output {
    const Matrix& matrix;
    const float* bias;
    bool add;
    float* out;
    ptrdiff_t stride;

    /// Adds the sums of a block, (tile's tokens, 16 rows), where they belong.
    void write(const float (&sums)[16][BLOCK], const Tile& tile, int block) const {
        const F start = bias ? load(bias + block * BLOCK) : set(0.0f);
        for (int m = 0; m < tile.tokens; ++m) {
            float* to = out + (tile.first + m) * stride + block * BLOCK;
            const F total = load(sums[m]) + start;
            store(to, add ? load(to) + total : total);
        }
    }
};

const uint16_t* inputs_of(const Input& input, const Tile& tile) {
    return reinterpret_cast<const uint16_t*>(input.data) + size_t(tile.first) * input.groups * GROUP;
}
const uint16_t* weights_of(const Matrix& matrix, int block) { return reinterpret_cast<const uint16_t*>(matrix.block(block)); }

inline void prefetch(const uint16_t* weights) {
    for (int line = 0; line < 16; ++line) __builtin_prefetch(reinterpret_cast<const uint8_t*>(weights) + 4096 + 64 * line);
}

inline void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}
inline void store_sums(float (&sums)[4][16][BLOCK]) {
    _tile_stored(0, sums[0], 4 * BLOCK);
    _tile_stored(1, sums[1], 4 * BLOCK);
    _tile_stored(2, sums[2], 4 * BLOCK);
    _tile_stored(3, sums[3], 4 * BLOCK);
}

/// Two full tiles of tokens times two blocks.
void multiply_two_tiles(const Input& input, const Tile& a, const Tile& b, int block, const Output& output) {
    const uint16_t *x = inputs_of(input, a), *y = inputs_of(input, b);
    const uint16_t *v = weights_of(output.matrix, block), *w = weights_of(output.matrix, block + 1);
    clear_sums();
    for (int group = 0; group < input.groups; ++group, x += TILE * GROUP, y += TILE * GROUP)
        for (int k = 0; k < GROUP; k += COLUMNS, v += COLUMNS * BLOCK, w += COLUMNS * BLOCK) {
            _tile_loadd(4, x + k, 2 * GROUP);
            _tile_loadd(6, v, 4 * BLOCK);
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, y + k, 2 * GROUP);
            _tile_dpbf16ps(1, 5, 6);
            _tile_loadd(7, w, 4 * BLOCK);
            _tile_dpbf16ps(2, 4, 7);
            _tile_dpbf16ps(3, 5, 7);
        }
    alignas(64) float sums[4][16][BLOCK];
    store_sums(sums);
    output.write(sums[0], a, block), output.write(sums[1], b, block);
    output.write(sums[2], a, block + 1), output.write(sums[3], b, block + 1);
}

/// One tile of tokens times four blocks.
void multiply_four_blocks(const Input& input, const Tile& tile, int block, const Output& output) {
    const uint16_t *x = inputs_of(input, tile), *w = weights_of(output.matrix, block);
    const size_t next = output.matrix.block_bytes() / sizeof(uint16_t);
    clear_sums();
    for (int group = 0; group < input.groups; ++group, x += tile.size * GROUP)
        for (int k = 0; k < GROUP; k += COLUMNS, w += COLUMNS * BLOCK) {
            for (int n = 0; n < 4; ++n) prefetch(w + n * next);
            _tile_loadd(4, x + k, 2 * GROUP);
            _tile_loadd(5, w, 4 * BLOCK);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, w + next, 4 * BLOCK);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(7, w + 2 * next, 4 * BLOCK);
            _tile_dpbf16ps(2, 4, 7);
            _tile_loadd(5, w + 3 * next, 4 * BLOCK);
            _tile_dpbf16ps(3, 4, 5);
        }
    alignas(64) float sums[4][16][BLOCK];
    store_sums(sums);
    for (int n = 0; n < 4; ++n) output.write(sums[n], tile, block + n);
}

void multiply_one_block(const Input& input, const Tile& tile, int block, const Output& output) {
    const uint16_t *x = inputs_of(input, tile), *w = weights_of(output.matrix, block);
    _tile_zero(0);
    for (int group = 0; group < input.groups; ++group, x += tile.size * GROUP)
        for (int k = 0; k < GROUP; k += COLUMNS, w += COLUMNS * BLOCK) {
            _tile_loadd(4, x + k, 2 * GROUP);
            _tile_loadd(5, w, 4 * BLOCK);
            _tile_dpbf16ps(0, 4, 5);
        }
    alignas(64) float sums[16][BLOCK];
    _tile_stored(0, sums, 4 * BLOCK);
    output.write(sums, tile, block);
}

void matmul(const Matrix& matrix, const Input& input, int first, int last, const float* bias, bool add, float* out,
            ptrdiff_t stride) {
    if (matrix.format != Format::bf16) return avx512_kernels()->matmul(matrix, input, first, last, bias, add, out, stride);
    const Output output{matrix, bias, add, out, stride};
    const int tiles = (input.tokens + TILE - 1) / TILE, paired = input.tokens / TILE / 2 * 2;
    const int even = paired ? last - (last - first) % 2 : first;
    if (paired) configure(TILE, 5);
    for (int block = first; block < even; block += 2)
        for (int index = 0; index < paired; index += 2)
            multiply_two_tiles(input, Tile(input, index), Tile(input, index + 1), block, output);
    for (int index = even == last ? paired : 0; index < tiles; ++index) {
        const Tile tile(input, index);
        configure(tile.size, 4);
        int block = index < paired ? even : first;
        for (; block + 4 <= last; block += 4) multiply_four_blocks(input, tile, block, output);
        for (; block < last; ++block) multiply_one_block(input, tile, block, output);
    }
    _tile_release();
}

/// Asks the operating system for the tile registers, which Linux gives only to a process that asks.
bool allowed() {
    constexpr int ASK = 0x1023, TILE_DATA = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    return syscall(SYS_arch_prctl, ASK, TILE_DATA) == 0;
}

}  // namespace
}  // namespace avx512

const Kernels* amx_kernels() {
    static const Kernels* const kernels = []() -> const Kernels* {
        if (!avx512_kernels() || !__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16") || !avx512::allowed())
            return nullptr;
        static Kernels amx = *avx512_kernels();
        amx.name = "amx";
        amx.matmul = avx512::matmul;
        return &amx;
    }();
    return kernels;
}
}  // namespace bluejay
