// What a step is made of, once per instruction set. Shapes: D model, F hidden, H head width, K key/value heads.

#pragma once
#include <cstddef>
#include <cstdint>

namespace bluejay {

enum class Format : uint8_t { f32, bf16, q8, q4 };
enum class Activation : uint8_t { none, gelu_tanh, gelu, relu, silu };

constexpr int BLOCK = 16;  // rows of a matrix that are stored side by side, one a lane
constexpr int GROUP = 64;  // columns that share a scale in q8 and in inputs; weights in q4 have one for each half of them
constexpr int PAGE = 16;   // tokens of a page of the cache, one a lane

constexpr int round_up(int n, int to) { return (n + to - 1) / to * to; }
constexpr int bits_of(Format format) {
    return format == Format::f32 ? 32 : format == Format::bf16 ? 16 : format == Format::q8 ? 8 : 4;
}

/// What a matrix of this format multiplies: both quantised ones multiply int8.
constexpr Format input_format(Format format) { return format == Format::q4 ? Format::q8 : format; }

/// A weight matrix (rows, columns), padded to blocks of 16 rows and groups of 64 columns. A block stands in memory as
/// its groups, one after the other; a group as 16 rows by 64 columns, interleaved so that a register holds all 16 rows:
/// f32 one column at a time, bf16 two, q8 four (codes + 128), q4 four in the low and the four 32 columns on in the high
/// nibbles. Scales stand in an array of their own: of q8 bfloat16, 16 for each group of each block; of q4, for each
/// block, 16 bfloat16 steps and then for each group the int8 scales of its first and of its second 32 columns, in steps.
struct Matrix {
    static constexpr int SCALE_BYTES = 2 * BLOCK;  // of a group: one bfloat16 or two int8 for each row
    Format format = Format::f32;
    int rows = 0, columns = 0;
    const uint8_t* data = nullptr;
    const uint8_t* scales = nullptr;
    const uint8_t* codes = nullptr;  // q4: what the 16 nibbles stand for, + 128

    int blocks() const { return (rows + BLOCK - 1) / BLOCK; }
    int groups() const { return (columns + GROUP - 1) / GROUP; }
    size_t block_bytes() const { return size_t(groups()) * GROUP * BLOCK * bits_of(format) / 8; }
    const uint8_t* block(int b) const { return data + b * block_bytes(); }
    size_t block_scale_bytes() const { return size_t(groups() + (format == Format::q4)) * SCALE_BYTES; }
    const uint8_t* block_scales(int b) const { return scales + b * block_scale_bytes(); }
};

/// The rows that a matrix multiplies, converted to what its format multiplies by (f32, bf16, or int8 with a scale for
/// each group) and arranged in tiles of tokens that share one reading of the weights.
struct Input {
    Format format = Format::f32;  // f32, bf16 or q8
    int tokens = 0, groups = 0;
    uint8_t* data = nullptr;
    float* scales = nullptr;     // of each group of each token
    int32_t* offsets = nullptr;  // of each half of a group: -128 times its sum, which takes back what codes have too much
};

/// Rows to be packed: `a`, or activation(a), or activation(a) * b; each column times its `smoothing`, if there is one.
/// Columns up to the next multiple of 64 must be zero.
struct Source {
    const float* a = nullptr;
    const float* b = nullptr;
    Activation activation = Activation::none;
    const float* smoothing = nullptr;
};

/// The keys and values of one key/value head in one page: keys as (H, 16 tokens), values as (16 tokens, H), each in
/// f32, bf16, or q8: int8 with a scale for each token.
struct Page {
    uint8_t* keys;
    uint8_t* values;
    float* key_scales;
    float* value_scales;
};

/// Up to ROWS queries of one sequence that share a key/value head.
struct Queries {
    static constexpr int ROWS = 4;
    int count = 0;
    int d_head = 0;
    float scale = 1;
    Format cache = Format::bf16;
    const float* q[ROWS];
    float* out[ROWS];
    int first[ROWS], last[ROWS];  // the positions that each may see
    float* scores;                // (ROWS, capacity), capacity a multiple of 16
    int capacity;
};

struct Kernels {
    const char* name;
    int tile;
    void (*norm)(const float* x, const float* weight, const float* bias, float eps, int width, float* out);
    void (*pack)(const Source& source, int token, int first_group, int last_group, Input& out);
    /// out[token * stride + row] = bias[row] + (matrix x)[row], or += it, for the rows of blocks first..last-1.
    void (*matmul)(const Matrix& matrix, const Input& input, int first, int last, const float* bias, bool add,
                   float* out, ptrdiff_t stride);
    void (*append)(const float* key, const float* value, int d_head, Format cache, int slot, const Page& page);
    /// `pages[i]` holds positions 16 i .. 16 i + 15.
    void (*attend)(const Queries& queries, const Page* pages);
    /// Codes and scales of one row of groups of 64 weights: q8's codes + 128 with bfloat16 scales; q4's numbers of values
    /// of `code` (16, ascending) with a bfloat16 step and then two int8 scales a group, each of least squared error with
    /// the squares times the `importance` of their columns. Equal to bluejay.gpt.quantization.packing.quantize.
    void (*quantize)(const float* row, const float* importance, int groups, Format format, const float* code,
                     uint8_t* codes, uint8_t* scales);
    /// Reads memory as fast as it comes; the result keeps the compiler from leaving it out.
    uint64_t (*read)(const uint8_t* from, size_t bytes);
};

const Kernels* avx512_kernels();    // nullptr where this build or processor does not have them
const Kernels* avx2_kernels();
const Kernels* neon_kernels();
const Kernels* portable_kernels();

}  // namespace bluejay
