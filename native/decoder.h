// The weights and the cache of a decoder, and its step. Shapes: T tokens of a step, B sequences.

#pragma once
#include <memory>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "kernels.h"
#include "threads.h"

namespace bluejay {

/// The fields of bluejay.gpt.config.GPTConfig that the arithmetic needs, with defaults applied.
struct Config {
    int n_layer = 0, d_model = 0, n_head = 0, n_kv_head = 0, d_head = 0, d_hidden = 0, vocab_size = 0, n_ctx = 0;
    bool parallel = false, rotate_half = false;
    float norm_eps = 0, scale = 0;
    int window = 0;
    std::vector<int> local_layers;
    Activation activation = Activation::gelu_tanh;
    std::vector<float> frequencies;  // of each rotated pair, in radians per token
    float rotary_factor = 1;         // on what was rotated
};

/// Throws std::invalid_argument for an unknown name.
Activation activation_named(const std::string& name);

/// A table whose rows are looked up, such as an embedding: (rows, columns) of f32 or bf16.
struct Lookup {
    Format format = Format::f32;
    int rows = 0, columns = 0;
    const uint8_t* data = nullptr;
};

/// The weights of a decoder by the names of bluejay.gpt.model; factors for an input have the name of what computes it.
struct Weights {
    std::unordered_map<std::string, Matrix> matrices;
    std::unordered_map<std::string, Lookup> lookups;
    std::unordered_map<std::string, std::vector<float>> vectors;  // padded to a multiple of 64 with zeros
};

/// The new tokens of B sequences, one sequence after the other; fields as in bluejay.infer.backends.StepBatch.
struct Batch {
    std::span<const int32_t> tokens, starts, lengths, pages, wanted;
    int pages_per_sequence = 0;
};

/// What a step writes for each wanted token: logits; or, if there are `scores`, for the token in `targets` its
/// log-probability and by how much its logit falls short of the largest; or, if there are `hidden`, the head's input.
/// For scores a token may be wanted several times in succession, with a target each.
struct Results {
    float* logits = nullptr;  // (wanted, stride)
    ptrdiff_t stride = 0;
    const int32_t* targets = nullptr;
    float* scores = nullptr;  // (wanted, 2)
    float* hidden = nullptr;  // (wanted, d_model)
};

class Buffer;

/// A decoder with a paged cache of keys and values. One thread calls it; its own threads share the work of a step.
class Decoder {
   public:
    /// Throws std::invalid_argument if a weight is missing or has the wrong shape, std::bad_alloc if memory is too short.
    Decoder(const Config& config, Weights weights, const Kernels& kernels, int threads, int n_pages, Format cache);
    ~Decoder();

    /// Throws std::invalid_argument for an impossible batch.
    void step(Batch batch, Results results);

    /// Copies the keys and values of all layers in page `source` to page `target`.
    void copy_page(int source, int target);

    const Kernels& kernels() const { return kernels_; }
    Pool& pool() { return pool_; }

   private:
    /// `smoothing` are factors for the columns of the input. Matrices whose input comes from a norm leave them to the norm.
    struct Linear {
        const Matrix* matrix = nullptr;
        const float* bias = nullptr;
        const float* smoothing = nullptr;
    };
    struct Norm {
        const float* weight = nullptr;
        const float* bias = nullptr;
        const float* smoothing = nullptr;
    };
    struct Layer {
        Norm norm, mlp_norm, q_norm, k_norm;  // the last two of each head, if there are any
        Linear q, k, v, out, gate, up, down;
        bool local = false;
    };
    /// Rows (T, stride) of floats.
    struct Rows {
        float* data = nullptr;
        int stride = 0;
        float* operator[](int token) const { return data + ptrdiff_t(token) * stride; }
    };
    /// One matrix product, or the sum of two, written or added to `out`.
    struct Product {
        struct Term {
            Linear linear;
            const Input* input = nullptr;
        } terms[2];
        Rows out;
        bool add = false;
    };
    struct Task {
        int sequence, first, last;  // a range of query rows: tokens times query heads of one key/value head
    };
    struct Workspace;

    // Weights by name. They throw std::invalid_argument for another shape, and the first two where there is none; the
    // others then return nullptr.
    Linear linear(const std::string& name, int rows, int columns) const;
    Norm norm(const std::string& name, int width) const;
    const float* vector(const std::string& name, int size) const;
    const Lookup* lookup(const std::string& name, int rows) const;
    /// Throws std::invalid_argument for an impossible batch.
    void check(const Batch& batch) const;
    /// Allocates memory for a step, and computes the position and the angles of its tokens and the tasks of attention.
    void prepare(const Batch& batch);
    /// The wanted tokens, each once.
    std::span<const int32_t> prepare_scores(std::span<const int32_t> wanted, const Results& results);
    Page page(int layer, int number, int head) const;

    // What each thread of a step does; a barrier ends each operation.
    void forward(int thread, const Batch& batch, const Results& results);
    void embed(int token, int id);
    void normalise(const Norm& norm, int tokens, const Rows& out, Input& packed);
    void pack(const Source& rows, int stride, int columns, int tokens, Input& packed);
    void multiply(std::span<const Product> products, int tokens);
    void score(int thread, const Input& packed, const Results& results);
    void store_keys(const Layer& layer, int number, const Batch& batch);
    void attention(const Layer& layer, int number, int thread, const Batch& batch);
    void attend_task(const Layer& layer, int number, const Task& task, int head, int thread, const Batch& batch);

    Config config_;
    Weights weights_;
    const Kernels& kernels_;
    Pool pool_;
    int n_pages_;
    Format cache_format_;
    size_t key_bytes_, page_bytes_;
    std::unique_ptr<Buffer> cache_;
    std::unique_ptr<Workspace> work_;
    std::vector<Layer> layers_;
    Norm norm_;
    Linear head_;
    const Lookup* embed_ = nullptr;
    Linear packed_embed_;  // where there is no `embed_`: the embedding's own matrix, or that of the head it is tied to
    const Lookup* position_ = nullptr;
};

}  // namespace bluejay
