// The memory of a step: rows of floats that phases pass on, and the same rows packed for the matrix kernels.

#pragma once
#include <memory>
#include <vector>

#include "buffer.h"
#include "decoder.h"

namespace bluejay {

struct Decoder::Workspace {
    int capacity = 0;  // tokens
    std::unique_ptr<Buffer> memory;
    Rows x, h, mlp_h, q, k, v, attended, up, gate;
    Input packed, mlp_packed, attended_packed, hidden_packed;

    std::vector<int> sequence, position;  // of each token
    std::vector<float> cosines, sines;    // (T, pairs)
    std::vector<Task> tasks;
    std::vector<std::vector<float>> scores;  // of each thread
    std::vector<std::vector<Page>> pages;    // of each thread

    std::vector<int32_t> score_rows, score_ends;  // the tokens whose successors are scored, and the end of each one's targets
    std::vector<Partial> partials;                // (columns / SCORE_COLUMNS, rows)
    std::vector<std::vector<float>> some_logits;  // of each thread: (rows, SCORE_COLUMNS)

    /// Allocates memory for `tokens` in one piece, if there is not enough yet.
    void reserve(const Config& config, int tokens) {
        if (tokens <= capacity) return;
        const int wanted = round_up(tokens, 16);
        std::vector<std::pair<uint8_t**, size_t>> parts;
        const auto rows = [&](Rows& out, int width) {
            out.stride = round_up(width, GROUP);
            parts.emplace_back(reinterpret_cast<uint8_t**>(&out.data), size_t(wanted) * out.stride * sizeof(float));
        };
        const auto input = [&](Input& out, int width) {
            out.groups = round_up(width, GROUP) / GROUP;
            const size_t count = size_t(wanted) * out.groups;
            parts.emplace_back(&out.data, count * GROUP * sizeof(float));
            parts.emplace_back(reinterpret_cast<uint8_t**>(&out.scales), count * sizeof(float));
            parts.emplace_back(reinterpret_cast<uint8_t**>(&out.offsets), count * 2 * sizeof(int32_t));
        };
        const int attended_width = config.n_head * config.d_head, kv = config.n_kv_head * config.d_head;
        for (Rows* each : {&x, &h, &mlp_h}) rows(*each, config.d_model);
        for (Rows* each : {&q, &attended}) rows(*each, attended_width);
        for (Rows* each : {&k, &v}) rows(*each, kv);
        for (Rows* each : {&up, &gate}) rows(*each, config.d_hidden);
        input(packed, config.d_model);
        input(mlp_packed, config.d_model);
        input(attended_packed, attended_width);
        input(hidden_packed, config.d_hidden);
        size_t total = 0;
        for (auto& [pointer, bytes] : parts) total += (bytes + 63) / 64 * 64;
        memory = std::make_unique<Buffer>(total);
        uint8_t* at = memory->data();
        for (auto& [pointer, bytes] : parts) {
            *pointer = at;
            at += (bytes + 63) / 64 * 64;
        }
        capacity = wanted;
    }
};

}  // namespace bluejay
