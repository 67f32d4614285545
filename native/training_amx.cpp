// Attention and the gradients of matrices in the tile registers of AMX. All else is AVX-512's.

#include "kernels.h"
#include "lanes_avx512.h"
#include "operand.h"
#include "training.h"

namespace bluejay {
namespace avx512 {
namespace {
#include "tile_shapes.h"

constexpr int TILE_QUERIES = 16, TILE_DIMENSIONS = 16, BACKWARD_QUERIES = 96;

/// Registers 0 to 3 are sums. 4 and 5 are 16 rows of x and a block of w with 16 pairs each, 6 and 7 the same with 8 pairs.
void configure() {
    TileShapes shapes;
    shapes.row_bytes[6] = 32;
    shapes.rows[7] = 8;
    shapes.load();
}

/// Adds the products of the rows in one register of x with the block of w at `from` to the sums of number N.
#define MULTIPLY(N, X, W)                           \
    _tile_loadd(W, from + N * w.block, 2 * w.pair); \
    _tile_dpbf16ps(N, X, W)

/// Multiplies 16 rows of x with `blocks` blocks of w and passes the results to `each(m, block, sums)`; `pairs` is a multiple
/// of 8.
template <int M, class Each>
inline void product(const Bf16* x, ptrdiff_t row, const Operand& w, int pairs, int blocks, const Each& each) {
    static_assert(M == 16);
    alignas(64) float sums[4][16][16];
    for (int block = 0; block < blocks; block += 4) {
        const int n = blocks - block < 4 ? blocks - block : 4;
        const Bf16* from = w.w + block * w.block;
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        int p = 0;
        for (; p + 16 <= pairs; p += 16, from += 16 * w.pair) {
            _tile_loadd(4, x + 2 * p, 2 * row);
            MULTIPLY(0, 4, 5);
            if (n > 1) { MULTIPLY(1, 4, 5); }
            if (n > 2) { MULTIPLY(2, 4, 5); }
            if (n > 3) { MULTIPLY(3, 4, 5); }
        }
        if (p < pairs) {
            _tile_loadd(6, x + 2 * p, 2 * row);
            MULTIPLY(0, 6, 7);
            if (n > 1) { MULTIPLY(1, 6, 7); }
            if (n > 2) { MULTIPLY(2, 6, 7); }
            if (n > 3) { MULTIPLY(3, 6, 7); }
        }
        _tile_stored(0, sums[0], 64);
        if (n > 1) _tile_stored(1, sums[1], 64);
        if (n > 2) _tile_stored(2, sums[2], 64);
        if (n > 3) _tile_stored(3, sums[3], 64);
        for (int i = 0; i < n; ++i)
            for (int m = 0; m < 16; ++m) each(m, block + i, load(sums[i][m]));
    }
}
#undef MULTIPLY

#include "flash.h"
#include "weight_gradient.h"

void attend_in_tiles(const Attention& a, const AttentionInputs& in, int kv_head, Bf16* out, float* lse, std::byte* space) {
    configure();
    attend_training(a, in, kv_head, out, lse, space);
    _tile_release();
}
void attend_backward_in_tiles(const Attention& a, const AttentionInputs& in, const AttentionGradients& gradients, int kv_head,
                              std::byte* space) {
    configure();
    attend_backward(a, in, gradients, kv_head, space);
    _tile_release();
}

}  // namespace
}  // namespace avx512

const TrainingKernels* amx_training_kernels() {
    if (!amx_kernels() || !avx512_training_kernels()) return nullptr;  // which also asks the system for the registers
    static const TrainingKernels kernels = [] {
        TrainingKernels amx = *avx512_training_kernels();
        amx.attention_space = avx512::attention_space;
        amx.attend = avx512::attend_in_tiles;
        amx.attend_backward = avx512::attend_backward_in_tiles;
        amx.weight_gradient = avx512::weight_gradient;
        amx.weight_gradient_space = avx512::weight_gradient_space;
        return amx;
    }();
    return &kernels;
}
}  // namespace bluejay
