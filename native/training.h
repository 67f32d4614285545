// The operations of a training step other than matrix products, in bfloat16. They are only for processors that multiply
// bfloat16; on others torch trains in float32. Shapes: T tokens, N query heads, K key/value heads, H head width,
// V vocabulary, R rotated pairs.

#pragma once
#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace bluejay {

using Bf16 = uint16_t;

/// Attention of one sequence. Token t attends to the tokens first_visible[t] .. t, or 0 .. t if that is nullptr.
struct Attention {
    int T, N, K, H;    // H a multiple of 16
    int R;             // 0 without rotary positions
    bool rotate_half;  // pairs of dimensions are (i, R + i) instead of (2 i, 2 i + 1)
    float scale;
    const int32_t* first_visible;
    const float *cos, *sin;  // (T, R)
};

/// Queries, keys and values of one sequence, before rotation.
struct AttentionInputs {
    const Bf16 *q, *k, *v;  // (T, N, H), (T, K, H), (T, K, H)
};

/// What the forward pass gave, the gradient of its output, and where those of the inputs are written.
struct AttentionGradients {
    const Bf16 *out, *d_out;  // (T, N, H)
    const float* lse;         // (N, T): the logarithm of the sum in each softmax
    Bf16 *dq, *dk, *dv;       // shaped as q, k, v
};

/// Contiguous rows of the residual stream, which is float32 or bfloat16.
struct NormRows {
    const void* x;
    bool x_is_bf16;
    const float *weight, *bias;  // without a bias it is a root-mean-square norm
    float eps;
    int rows, width;
};

/// Rows of logits with the token that follows each.
struct LossRows {
    int rows, vocabulary;
    const float* bias;       // (V) or nullptr
    const int64_t* targets;  // (rows)
    const float* weights;    // (rows), or nullptr for ones
    float scale, z_loss;
};

/// A part of the gradient of a matrix (n_out, n_in): its rows first_out .. last_out - 1 and columns first_in .. last_in - 1, all
/// multiples of 16.
struct WeightGradient {
    const Bf16 *dy, *x;  // (rows, n_out), (rows, n_in)
    int rows, n_out, n_in;
    float* d_weight;  // (n_out, n_in); dy^T x is added
    int first_out, last_out, first_in, last_in;
};

/// The operations, implemented once per instruction set.
struct TrainingKernels {
    /// Bytes of `space` that the two functions below need, a multiple of 64; it must be aligned to 64.
    size_t (*attention_space)(const Attention&);
    /// Attention of the N / K query heads of one key/value head. Writes `out` (T, N, H) and `lse` (N, T), the logarithm of
    /// the sum in each softmax.
    void (*attend)(const Attention&, const AttentionInputs&, int kv_head, Bf16* out, float* lse, std::byte* space);
    /// Writes the gradients of the head's keys and values and of its query heads; computes the probabilities a second time.
    void (*attend_backward)(const Attention&, const AttentionInputs&, const AttentionGradients&, int kv_head, std::byte* space);
    /// Writes the norm of each row.
    void (*norm)(const NormRows&, Bf16* y);
    /// Writes `dx` in the type of x and adds to `d_weight` and `d_bias`.
    void (*norm_backward)(const NormRows&, const Bf16* dy, void* dx, float* d_weight, float* d_bias);
    void (*activate)(Activation, const Bf16* x, size_t count, Bf16* y);
    void (*activate_backward)(Activation, const Bf16* x, const Bf16* dy, size_t count, Bf16* dx);
    /// Returns the weighted sum of the rows' negative log-likelihoods, without `scale`. Replaces the logits by the gradient of
    /// that sum and the z-loss, times `scale`, and adds its columns to `d_bias`, if given.
    double (*loss)(const LossRows&, Bf16* logits, float* d_bias);
    /// nullptr where torch's product is as fast. `space` is aligned to 64 bytes and has those that `weight_gradient_space` says.
    void (*weight_gradient)(const WeightGradient&, std::byte* space) = nullptr;
    size_t (*weight_gradient_space)(const WeightGradient&) = nullptr;
};

// nullptr if this build or processor does not have them
const TrainingKernels* amx_training_kernels();
const TrainingKernels* avx512_training_kernels();

}  // namespace bluejay
