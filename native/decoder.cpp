// Construction of a decoder, and the checks of its inputs.

#include "decoder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "buffer.h"
#include "workspace.h"

namespace bluejay {

Activation activation_named(const std::string& name) {
    const char* names[] = {"none", "gelu_tanh", "gelu", "relu", "silu"};
    const auto found = std::ranges::find(names, name);
    if (found == std::end(names)) throw std::invalid_argument("unknown activation " + name);
    return Activation(found - std::begin(names));
}

Decoder::Decoder(const Config& config, Weights weights, const Kernels& kernels, int threads, int n_pages,
                 Format cache)
    : config_(config),
      weights_(std::move(weights)),
      kernels_(kernels),
      pool_(threads),
      n_pages_(n_pages),
      cache_format_(cache),
      key_bytes_(size_t(round_up(config.d_head, 16)) * PAGE * traits(cache).bits / 8),
      page_bytes_(2 * key_bytes_ + 2 * PAGE * sizeof(float)),
      cache_(std::make_unique<Buffer>(page_bytes_ * config.n_kv_head * n_pages * config.n_layer)),
      work_(std::make_unique<Workspace>()) {
    const int q = config.n_head * config.d_head, kv = config.n_kv_head * config.d_head;
    for (int i = 0; i < config.n_layer; ++i) {
        const std::string block = "blocks." + std::to_string(i) + ".";
        Layer layer;
        layer.norm = norm(block + "norm", config.d_model);
        if (weights_.vectors.contains(block + "mlp_norm.weight"))
            layer.mlp_norm = norm(block + "mlp_norm", config.d_model);
        if (weights_.vectors.contains(block + "attention.q_norm.weight")) {
            layer.q_norm = norm(block + "attention.q_norm", config.d_head);
            layer.k_norm = norm(block + "attention.k_norm", config.d_head);
        }
        layer.q = linear(block + "attention.q", q, config.d_model);
        layer.k = linear(block + "attention.k", kv, config.d_model);
        layer.v = linear(block + "attention.v", kv, config.d_model);
        layer.out = linear(block + "attention.out", config.d_model, q);
        if (weights_.matrices.contains(block + "mlp.gate.weight"))
            layer.gate = linear(block + "mlp.gate", config.d_hidden, config.d_model);
        layer.up = linear(block + "mlp.up", config.d_hidden, config.d_model);
        layer.down = linear(block + "mlp.down", config.d_model, config.d_hidden);
        for (const Linear* each : {&layer.k, &layer.v, &layer.gate, &layer.up})
            if (each->matrix && traits(each->matrix->format).input != traits(layer.q.matrix->format).input)
                throw std::invalid_argument(block + " multiplies one input by matrices of several types");
        layer.local = std::ranges::find(config.local_layers, i) != config.local_layers.end();
        layers_.push_back(layer);
    }
    norm_ = norm("norm", config.d_model);
    head_ = linear("head", config.vocab_size, config.d_model);
    embed_ = lookup("embed.weight", config.vocab_size);
    packed_embed_ = weights_.matrices.contains("embed.weight") ? linear("embed", config.vocab_size, config.d_model)
                                                               : Linear{head_.matrix, nullptr, norm_.smoothing};
    position_ = lookup("position.weight", config.n_ctx);
}

Decoder::~Decoder() = default;

const float* Decoder::vector(const std::string& name, int size) const {
    const auto found = weights_.vectors.find(name);
    if (found == weights_.vectors.end()) return nullptr;
    if (int(found->second.size()) < size) throw std::invalid_argument(name + " is too short");
    return found->second.data();
}

Decoder::Norm Decoder::norm(const std::string& name, int width) const {
    const Norm norm{vector(name + ".weight", width), vector(name + ".bias", width), vector(name + ".smoothing", width)};
    if (!norm.weight) throw std::invalid_argument("there is no " + name + ".weight");
    return norm;
}

Decoder::Linear Decoder::linear(const std::string& name, int rows, int columns) const {
    const auto found = weights_.matrices.find(name + ".weight");
    if (found == weights_.matrices.end()) throw std::invalid_argument("there is no " + name + ".weight");
    if (found->second.rows != rows || found->second.columns != columns)
        throw std::invalid_argument(name + ".weight does not have the shape that the configuration gives it");
    return {&found->second, vector(name + ".bias", round_up(rows, BLOCK)), vector(name + ".smoothing", columns)};
}

const Lookup* Decoder::lookup(const std::string& name, int rows) const {
    const auto found = weights_.lookups.find(name);
    if (found == weights_.lookups.end()) return nullptr;
    if (found->second.rows != rows || found->second.columns != config_.d_model)
        throw std::invalid_argument(name + " does not have the shape that the configuration gives it");
    return &found->second;
}

Page Decoder::page(int layer, int number, int head) const {
    const size_t index = (size_t(layer) * n_pages_ + number) * config_.n_kv_head + head;
    uint8_t* at = cache_->data() + index * page_bytes_;
    float* scales = reinterpret_cast<float*>(at + 2 * key_bytes_);
    return {at, at + key_bytes_, scales, scales + PAGE};
}

void Decoder::copy_page(int source, int target) {
    for (int number : {source, target})
        if (number < 0 || number >= n_pages_) throw std::invalid_argument("a page number is outside the cache");
    if (source == target) return;
    for (int layer = 0; layer < config_.n_layer; ++layer)
        std::memcpy(page(layer, target, 0).keys, page(layer, source, 0).keys, page_bytes_ * config_.n_kv_head);
}

void Decoder::check(const Batch& batch) const {
    const auto require = [](bool holds, const char* what) {
        if (!holds) throw std::invalid_argument(what);
    };
    const int tokens = int(batch.tokens.size()), sequences = int(batch.lengths.size());
    require(int(batch.starts.size()) == sequences + 1, "a batch has one more start than lengths");
    require(int(batch.pages.size()) == sequences * batch.pages_per_sequence, "a batch has one row of pages for each sequence");
    require(batch.starts.front() == 0 && batch.starts.back() == tokens, "a batch's starts begin at 0 and end at the number of its tokens");
    for (int id : batch.tokens) require(id >= 0 && id < config_.vocab_size, "a token is outside the vocabulary");
    for (int row : batch.wanted) require(row >= 0 && row < tokens, "a wanted row is not one of the batch's tokens");
    for (int s = 0; s < sequences; ++s) {
        const int64_t length = batch.lengths[s], added = int64_t(batch.starts[s + 1]) - batch.starts[s];
        require(length >= 0 && added >= 0, "lengths must not be negative, and starts must not decrease");
        require(!position_ || length + added <= config_.n_ctx, "a position is outside the context");
        const int64_t used = (length + added + PAGE - 1) / PAGE;
        require(used <= batch.pages_per_sequence, "a sequence has too few pages");
        for (int i = 0; i < used; ++i) {
            const int number = batch.pages[s * batch.pages_per_sequence + i];
            require(number >= 0 && number < n_pages_, "a page number is outside the cache");
        }
    }
}

void Decoder::prepare(const Batch& batch) {
    Workspace& work = *work_;
    const int tokens = int(batch.tokens.size()), pairs = int(config_.frequencies.size());
    work.reserve(config_, tokens);
    work.sequence.resize(tokens);
    work.position.resize(tokens);
    work.cosines.resize(size_t(tokens) * pairs);
    work.sines.resize(size_t(tokens) * pairs);
    work.tasks.clear();
    int longest = 0;
    const int group = config_.n_head / config_.n_kv_head;
    for (int s = 0; s < int(batch.lengths.size()); ++s) {
        const int added = batch.starts[s + 1] - batch.starts[s];
        longest = std::max(longest, batch.lengths[s] + added);
        for (int i = 0; i < added; ++i) {
            const int token = batch.starts[s] + i, position = batch.lengths[s] + i;
            work.sequence[token] = s;
            work.position[token] = position;
            for (int pair = 0; pair < pairs; ++pair) {
                const float angle = float(position) * config_.frequencies[pair];
                work.cosines[size_t(token) * pairs + pair] = config_.rotary_factor * std::cos(angle);
                work.sines[size_t(token) * pairs + pair] = config_.rotary_factor * std::sin(angle);
            }
        }
        // Tasks of 16 rows are enough for all threads, and each is long enough to be worth its overhead.
        for (int row = 0; row < added * group; row += 16) work.tasks.push_back({s, row, std::min(row + 16, added * group)});
    }
    work.scores.resize(pool_.threads());
    work.pages.resize(pool_.threads());
    const int capacity = round_up(longest, PAGE);
    for (auto& scores : work.scores)
        if (int(scores.size()) < Queries::MAX_COUNT * capacity) scores.resize(size_t(Queries::MAX_COUNT) * capacity);
    for (auto& pages : work.pages) pages.resize(capacity / PAGE);
}

void Decoder::step(Batch batch, Results results) {
    check(batch);
    if (batch.tokens.empty()) return;
    prepare(batch);
    if (results.scores) batch.wanted = prepare_scores(batch.wanted, results);
    if (batch.wanted.size() > batch.tokens.size()) throw std::invalid_argument("more rows are wanted than tokens are given");
    pool_.run([&](int thread) { forward(thread, batch, results); });
}

std::span<const int32_t> Decoder::prepare_scores(std::span<const int32_t> wanted, const Results& results) {
    Workspace& work = *work_;
    work.score_rows.clear();
    work.score_ends.clear();
    for (size_t i = 0; i < wanted.size(); ++i) {
        if (results.targets[i] < 0 || results.targets[i] >= config_.vocab_size)
            throw std::invalid_argument("a target is outside the vocabulary");
        if (i && wanted[i] == wanted[i - 1]) {
            ++work.score_ends.back();
        } else {
            work.score_rows.push_back(wanted[i]);
            work.score_ends.push_back(int(i) + 1);
        }
    }
    const size_t rows = work.score_rows.size(), chunks = (config_.vocab_size + SCORE_COLUMNS - 1) / SCORE_COLUMNS;
    work.partials.resize(rows * chunks);
    work.some_logits.resize(pool_.threads());
    for (auto& logits : work.some_logits)
        if (logits.size() < rows * SCORE_COLUMNS) logits.resize(rows * SCORE_COLUMNS);
    return work.score_rows;
}

}  // namespace bluejay
