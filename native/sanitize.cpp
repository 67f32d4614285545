// The program that `make sanitize` runs under the address and the thread sanitizer. It steps random small models of every
// format, cache and shape of block on every instruction set, with one thread and with three. Both must give the same bits,
// and all instruction sets the same logits as plain C++.

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "decoder.h"

using namespace bluejay;

namespace {

std::mt19937 generator(0);
int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(generator); }

/// Memory of exactly the size of a weight, so that the sanitizer detects a read past its end.
struct Memory {
    std::vector<std::unique_ptr<uint8_t[]>> pieces;
    uint8_t* take(size_t bytes) {
        pieces.push_back(std::make_unique<uint8_t[]>(bytes));
        for (size_t i = 0; i < bytes; ++i) pieces.back()[i] = uint8_t(draw(1, 255));
        return pieces.back().get();
    }
    uint8_t* floats(size_t count, Format format) {
        uint8_t* at = take(count * traits(format).bits / 8);
        for (size_t i = 0; i < count; ++i) {
            const float value = float(draw(-100, 100)) / 1000;
            if (format == Format::f32)
                std::memcpy(at + 4 * i, &value, 4);
            else
                std::memcpy(at + 2 * i, reinterpret_cast<const uint8_t*>(&value) + 2, 2);
        }
        return at;
    }
};

Matrix matrix(Memory& memory, Format format, int rows, int columns) {
    Matrix made{format, rows, columns, nullptr, nullptr, nullptr};
    const size_t count = size_t(made.blocks()) * made.groups() * BLOCK;
    if (format == Format::f32 || format == Format::bf16) {
        made.data = memory.floats(count * GROUP, format);
        return made;
    }
    made.data = memory.take(made.blocks() * made.block_bytes());
    made.scales = memory.floats(made.blocks() * made.block_scale_bytes() / 2, Format::bf16);
    made.codebook = memory.take(16);
    return made;
}

Weights weights(Memory& memory, const Config& config, Format format, bool gated, bool two_norms, bool tied) {
    Weights made;
    const bool head_norms = draw(0, 1);
    const auto vector = [&](const std::string& name, int size) { made.vectors[name].assign(round_up(size, GROUP), 0.5f); };
    const bool smoothed = draw(0, 1) && (format == Format::q8 || format == Format::q4);
    const int q = config.n_head * config.d_head, kv = config.n_kv_head * config.d_head, D = config.d_model;
    for (int i = 0; i < config.n_layer; ++i) {
        const std::string block = "blocks." + std::to_string(i) + ".";
        const auto add = [&](const char* name, int rows, int columns) {
            const bool mixed = format == Format::q4 && draw(0, 1);  // matrices with 4 and with 8 bits may share an input
            made.matrices[block + name + ".weight"] = matrix(memory, mixed ? Format::q8 : format, rows, columns);
            vector(block + name + ".bias", rows);
        };
        add("attention.q", q, D), add("attention.k", kv, D), add("attention.v", kv, D), add("attention.out", D, q);
        add("mlp.up", config.d_hidden, D), add("mlp.down", D, config.d_hidden);
        if (gated) add("mlp.gate", config.d_hidden, D);
        vector(block + "norm.weight", D);
        if (two_norms) vector(block + "mlp_norm.weight", D);
        for (const char* of : {"attention.q_norm.weight", "attention.k_norm.weight"})
            if (head_norms) vector(block + of, config.d_head);
        if (!smoothed) continue;
        vector(block + "norm.smoothing", D), vector(block + "attention.out.smoothing", q);
        vector(block + "mlp.down.smoothing", config.d_hidden);
        if (two_norms) vector(block + "mlp_norm.smoothing", D);
    }
    if (smoothed) vector("norm.smoothing", D);
    vector("norm.weight", D), vector("norm.bias", D);
    made.matrices["head.weight"] = matrix(memory, format, config.vocab_size, D);
    if (!tied && draw(0, 1))
        made.matrices["embed.weight"] = matrix(memory, Format::q8, config.vocab_size, D);
    else if (!tied)
        made.lookups["embed.weight"] = {Format::bf16, config.vocab_size, D,
                                        memory.floats(size_t(config.vocab_size) * D, Format::bf16)};
    return made;
}

std::vector<float> run(const Config& config, const Weights& weights, const Kernels& kernels, int threads, Format cache) {
    constexpr int PAGES = 12, WIDTH = 4;
    Decoder decoder(config, weights, kernels, threads, PAGES, cache);
    std::vector<int32_t> lengths{0, 0, 0}, pages;
    for (int i = 0; i < PAGES; ++i) pages.push_back(PAGES - 1 - i);
    std::vector<float> all;
    for (const std::vector<int>& added : {std::vector{17, 1, 5}, {1, 1, 1}, {1, 30, 2}, {0, 3, 1}}) {
        std::vector<int32_t> tokens, starts{0}, wanted;
        for (int count : added) {
            for (int i = 0; i < count; ++i) tokens.push_back((7 * int(tokens.size()) + count) % config.vocab_size);
            starts.push_back(int(tokens.size()));
        }
        for (size_t i = 0; i < tokens.size(); i += 2) wanted.push_back(int(i));
        const int stride = round_up(config.vocab_size, BLOCK);
        std::vector<float> logits(wanted.size() * stride);
        decoder.step({tokens, starts, lengths, pages, wanted, WIDTH}, {.logits = logits.data(), .stride = stride});
        for (size_t s = 0; s < lengths.size(); ++s) lengths[s] += added[s];
        all.insert(all.end(), logits.begin(), logits.end());
        decoder.copy_page(pages[0], pages[3]);
    }
    return all;
}

}  // namespace

int main() {
    for (int round = 0; round < 24; ++round) {
        Memory memory;
        Config config;
        config.n_layer = 2, config.n_kv_head = draw(1, 3), config.n_head = config.n_kv_head * draw(1, 3);
        config.d_head = 2 * draw(2, 20), config.d_model = draw(20, 150), config.d_hidden = draw(20, 300);
        config.vocab_size = draw(17, 90), config.n_ctx = 64, config.norm_eps = 1e-5f, config.scale = 0.1f;
        config.parallel = round % 2, config.rotate_half = draw(0, 1), config.window = draw(1, 20), config.local_layers = {1};
        config.activation = Activation(draw(1, 4));
        config.frequencies.assign(draw(1, config.d_head / 2), 0.3f), config.rotary_factor = 1.2f;
        const Format format = Format(round % 4), cache = Format(draw(0, 2));
        const bool two_norms = !config.parallel || draw(0, 1);
        const Weights made = weights(memory, config, format, draw(0, 1), two_norms, draw(0, 1));
        std::vector<float> expected;
        for (const Kernels* kernels : {portable_kernels(), neon_kernels(), avx2_kernels(), avx512_kernels(), amx_kernels()}) {
            if (!kernels) continue;
            const std::vector<float> alone = run(config, made, *kernels, 1, cache);
            const std::vector<float> together = run(config, made, *kernels, 3, cache);
            if (std::memcmp(alone.data(), together.data(), alone.size() * sizeof(float))) {
                std::printf("round %d, %s: three threads give different bits than one\n", round, kernels->name);
                return 1;
            }
            if (expected.empty()) expected = alone;
            double difference = 0, size = 0;
            for (size_t i = 0; i < alone.size(); ++i) {
                difference += std::pow(alone[i] - expected[i], 2.0);
                size += std::pow(expected[i], 2.0);
            }
            // Inputs are rounded to bfloat16 or int8, so a difference in the last bit before can become a whole step after.
            if (!(difference < 1e-4 * size)) {
                std::printf("round %d, %s: logits differ by %g\n", round, kernels->name, std::sqrt(difference / size));
                return 1;
            }
        }
    }
    std::puts("clean");
}
