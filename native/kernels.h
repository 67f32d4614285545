// The operations of a step, implemented once per instruction set. Shapes: H head width.

#pragma once
#include "formats.h"

namespace bluejay {

enum class Activation : uint8_t { none, gelu_tanh, gelu, relu, silu };

constexpr int PAGE = 16;  // tokens of a page of the cache, one per lane

/// The rows that a matrix multiplies, one per token. They are converted to f32, bf16, or int8 with a scale for each group,
/// and arranged in tiles of tokens that share one read of the weights.
struct Input {
    Format format = Format::f32;  // f32, bf16 or q8
    int tokens = 0, groups = 0;
    uint8_t* data = nullptr;
    float* scales = nullptr;     // for each group of each token
    int32_t* offsets = nullptr;  // for each half of a group, -128 times its sum: it corrects for codes stored + 128
};

/// Rows to pack: activation(a), or activation(a) * b if there is a b; each column times its `smoothing`, if any. Columns up
/// to the next multiple of 64 must be zero.
struct Source {
    const float* a = nullptr;
    const float* b = nullptr;
    Activation activation = Activation::none;
    const float* smoothing = nullptr;
};

/// The keys and values of one key/value head in one page: keys as (H, 16 tokens), values as (16 tokens, H). They are f32,
/// bf16, or, as q8, int8 with a scale for each token.
struct Page {
    uint8_t* keys;
    uint8_t* values;
    float* key_scales;
    float* value_scales;
};

/// Queries of one sequence that share a key/value head.
struct Queries {
    static constexpr int MAX_COUNT = 4;
    int count = 0;
    int d_head = 0;
    float scale = 1;
    Format cache = Format::bf16;
    const float* q[MAX_COUNT];
    float* out[MAX_COUNT];
    int first_visible[MAX_COUNT], end_visible[MAX_COUNT];  // each attends to the positions first .. end - 1
    float* scores;                                         // (MAX_COUNT, capacity)
    int capacity;                                          // a multiple of 16
};

/// The values of the 16 codes of q4, ascending, and the scales to try for each half of a group.
struct Codebook {
    const float *values, *candidates;
    int n_candidates;
};

/// Of up to SCORE_COLUMNS logits the largest one, and the sum of the exponentials of their distances from it, which is NaN
/// if not all logits are finite.
struct Partial {
    float maximum, sum;
};
constexpr int SCORE_COLUMNS = 16 * BLOCK;

/// The first of the largest logits, and whether all of them are finite.
struct Likeliest {
    int index;
    float logit;
    bool finite;
};

/// Of tokens the sum of their masses, and how many they are.
struct Mass {
    double sum;
    int count;
};

/// The operations, implemented once per instruction set. `Matrix` and its blocks of rows are those of formats.h.
struct Kernels {
    const char* name;
    int tile;  // tokens that share one read of the weights
    /// `out` may be `x`.
    void (*norm)(const float* x, const float* weight, const float* bias, float eps, int width, float* out);
    /// Converts the groups first_group .. last_group - 1 of one token's row to the format of `out`.
    void (*pack)(const Source& source, int token, int first_group, int last_group, Input& out);
    /// out[token * stride + row] = bias[row] + (matrix x)[row], or += if `add`, for the rows of blocks first .. last - 1.
    void (*matmul)(const Matrix& matrix, const Input& input, int first, int last, const float* bias, bool add,
                   float* out, ptrdiff_t stride);
    /// Stores a token's key and value of one head in slot `slot` (0 .. 15) of a page.
    void (*append)(const float* key, const float* value, int d_head, Format cache, int slot, const Page& page);
    /// `pages[i]` holds positions 16 i .. 16 i + 15.
    void (*attend)(const Queries& queries, const Page* pages);
    Partial (*partial)(const float* logits, int size);
    Likeliest (*likeliest)(const float* logits, int size);
    /// out[i] = e^((logits[i] - maximum) factor), 0 below e^-87, for a multiple of 16 floats of which `size` count.
    void (*weights)(const float* logits, int size, float maximum, float factor, float* out);
    /// The masses of the tokens whose keys are not below `least`, which is finite.
    Mass (*mass)(const float* keys, const float* masses, int size, float least);
    /// Writes a row of a matrix as floats.
    void (*unpack_row)(const Matrix& matrix, int row, float* out);
    /// Write the codes and the scales of a row of so many groups; `importance` weighs the error of each column.
    void (*quantize_q8)(const float* row, int groups, uint8_t* codes, uint8_t* scales);
    void (*quantize_q4)(const float* row, const float* importance, int groups, const Codebook& codebook, uint8_t* codes,
                        uint8_t* scales);
    /// Reads memory at full speed. The result only keeps the compiler from removing the reads.
    uint64_t (*read)(const uint8_t* from, size_t bytes);
};

const Kernels* amx_kernels();       // nullptr if this build or processor does not have them
const Kernels* avx512_kernels();
const Kernels* avx2_kernels();
const Kernels* neon_kernels();
const Kernels* portable_kernels();

}  // namespace bluejay
