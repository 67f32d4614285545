// A step, run by all threads of the pool: phases of shared work, each followed by a barrier.

#include <algorithm>
#include <cmath>
#include <cstring>

#include "decoder.h"
#include "workspace.h"

namespace bluejay {
namespace {

/// Adds a row of a table to `out`.
void add_row(const Lookup& table, int row, float* out) {
    for (int i = 0; i < table.columns; ++i) {
        const size_t at = size_t(row) * table.columns + i;
        if (table.format == Format::f32)
            out[i] += reinterpret_cast<const float*>(table.data)[at];
        else
            out[i] += float_of_bf16(reinterpret_cast<const uint16_t*>(table.data)[at]);
    }
}

/// Rotates the pairs of one head in place.
void rotate(float* head, const float* cosines, const float* sines, int pairs, bool rotate_half) {
    const int step = rotate_half ? 1 : 2, other = rotate_half ? pairs : 1;
    for (int pair = 0; pair < pairs; ++pair) {
        float& first = head[pair * step];
        float& second = head[pair * step + other];
        const float rotated = first * cosines[pair] - second * sines[pair];
        second = second * cosines[pair] + first * sines[pair];
        first = rotated;
    }
}

}  // namespace

void Decoder::embed(int token, int id) {
    float* x = work_->x[token];
    if (embed_) {
        std::fill_n(x, config_.d_model, 0.0f);
        add_row(*embed_, id, x);
    } else {
        kernels_.unpack_row(*packed_embed_.matrix, id, x);
        for (int i = 0; packed_embed_.smoothing && i < config_.d_model; ++i) x[i] *= packed_embed_.smoothing[i];
    }
    std::fill(x + config_.d_model, x + work_->x.stride, 0.0f);
    if (position_) add_row(*position_, work_->position[token], x);
}

void Decoder::normalise(const Norm& norm, int tokens, const Rows& out, Input& packed) {
    pool_.share(tokens, 1, [&](int first, int last) {
        for (int token = first; token < last; ++token) {
            kernels_.norm(work_->x[token], norm.weight, norm.bias, config_.norm_eps, config_.d_model, out[token]);
            kernels_.pack({out[token], nullptr, Activation::none, norm.smoothing}, token, 0, packed.groups, packed);
        }
    });
}

void Decoder::pack(const Source& rows, int stride, int columns, int tokens, Input& packed) {
    constexpr int TASK_GROUPS = 32;
    const int tasks = (round_up(columns, GROUP) / GROUP + TASK_GROUPS - 1) / TASK_GROUPS;  // per token
    pool_.share(tokens * tasks, 1, [&](int first, int last) {
        for (int index = first; index < last; ++index) {
            const int token = index / tasks, group = index % tasks * TASK_GROUPS;
            const ptrdiff_t at = ptrdiff_t(token) * stride;
            kernels_.pack({rows.a + at, rows.b ? rows.b + at : nullptr, rows.activation, rows.smoothing}, token, group,
                          std::min(group + TASK_GROUPS, packed.groups), packed);
        }
    });
}

void Decoder::multiply(std::span<const Product> products, int tokens) {
    int blocks = 0;
    size_t bytes = 0;
    for (const Product& product : products) {
        blocks += product.terms[0].linear.matrix->blocks();
        for (const Product::Term& term : product.terms)
            if (term.linear.matrix) bytes += term.linear.matrix->blocks() * term.linear.matrix->block_bytes();
    }
    // With one tile of tokens, a task has enough blocks to be worth its overhead, but few enough that all threads end at the
    // same time. With several tiles it has more, so that each read of a tile, which is slow for long rows, is used for many
    // blocks. The number is even for kernels that multiply two blocks at once.
    const int grain = tokens > kernels_.tile ? 16 : std::max(2, int((128 << 10) * size_t(blocks) / bytes) / 2 * 2);
    const int max_grain = std::max(1, blocks / (4 * pool_.threads()));
    pool_.share(blocks, std::min(grain, max_grain), [&](int first, int last) {
        for (const Product& product : products) {
            const int count = product.terms[0].linear.matrix->blocks();
            const int from = std::max(first, 0), to = std::min(last, count);
            bool add = product.add;
            for (const Product::Term& term : product.terms) {
                if (!term.linear.matrix || from >= to) continue;
                kernels_.matmul(*term.linear.matrix, *term.input, from, to, term.linear.bias, add, product.out.data,
                                product.out.stride);
                add = true;
            }
            first -= count;
            last -= count;
        }
    });
}

void Decoder::store_keys(const Layer& layer, int number, const Batch& batch) {
    Workspace& work = *work_;
    const int tokens = int(batch.tokens.size()), pairs = int(config_.frequencies.size()), H = config_.d_head;
    // Tasks are heads of tokens, not tokens: writes of one token to a page each wait for a distant cache line.
    const int heads = config_.n_kv_head, group = config_.n_head / heads;
    pool_.share(tokens * heads, std::max(1, tokens * heads / (16 * pool_.threads())), [&](int first, int last) {
        for (int index = first; index < last; ++index) {
            const int token = index / heads, head = index % heads, position = work.position[token];
            const float* cosines = work.cosines.data() + size_t(token) * pairs;
            const float* sines = work.sines.data() + size_t(token) * pairs;
            const auto prepare_head = [&](float* x, const Norm& norm) {
                if (norm.weight) kernels_.norm(x, norm.weight, norm.bias, config_.norm_eps, H, x);
                rotate(x, cosines, sines, pairs, config_.rotate_half);
            };
            for (int query = head * group; query < (head + 1) * group; ++query)
                prepare_head(work.q[token] + query * H, layer.q_norm);
            float* key = work.k[token] + head * H;
            prepare_head(key, layer.k_norm);
            const int at = batch.pages[work.sequence[token] * batch.pages_per_sequence + position / PAGE];
            kernels_.append(key, work.v[token] + head * H, H, cache_format_, position % PAGE, page(number, at, head));
        }
    });
}

void Decoder::attend_task(const Layer& layer, int number, const Task& task, int head, int thread, const Batch& batch) {
    Workspace& work = *work_;
    std::vector<Page>& pages = work.pages[thread];
    const int group = config_.n_head / config_.n_kv_head, H = config_.d_head;
    const int start = batch.starts[task.sequence];
    const int seen = work.position[start + (task.last - 1) / group] + 1;
    const int* table = batch.pages.data() + ptrdiff_t(task.sequence) * batch.pages_per_sequence;
    for (int i = 0; i * PAGE < seen; ++i) pages[i] = page(number, table[i], head);
    Queries queries;
    queries.d_head = H;
    queries.scale = config_.scale;
    queries.cache = cache_format_;
    queries.scores = work.scores[thread].data();
    queries.capacity = round_up(seen, PAGE);
    for (int row = task.first; row < task.last;) {
        for (queries.count = 0; queries.count < Queries::MAX_COUNT && row < task.last; ++queries.count, ++row) {
            const int token = start + row / group, at = (head * group + row % group) * H, i = queries.count;
            queries.q[i] = work.q[token] + at;
            queries.out[i] = work.attended[token] + at;
            queries.end_visible[i] = work.position[token] + 1;
            queries.first_visible[i] = layer.local ? std::max(0, queries.end_visible[i] - config_.window) : 0;
        }
        kernels_.attend(queries, pages.data());
    }
}

void Decoder::attention(const Layer& layer, int number, int thread, const Batch& batch) {
    store_keys(layer, number, batch);
    const int heads = config_.n_kv_head;
    pool_.share(int(work_->tasks.size()) * heads, 1, [&](int first, int last) {
        for (int index = first; index < last; ++index)
            attend_task(layer, number, work_->tasks[index / heads], index % heads, thread, batch);
    });
}

void Decoder::forward(int thread, const Batch& batch, const Results& results) {
    Workspace& work = *work_;
    const int tokens = int(batch.tokens.size()), wanted = int(batch.wanted.size());
    const int attended_width = config_.n_head * config_.d_head;
    // Every thread has its own description of an input; the memory is shared.
    const auto input = [](const Input& memory, const Linear& reader, int count) {
        Input copy = memory;
        copy.tokens = count;
        copy.format = traits(reader.matrix->format).input;
        return copy;
    };
    pool_.share(tokens, 1, [&](int first, int last) {
        for (int token = first; token < last; ++token) embed(token, batch.tokens[token]);
    });
    for (int number = 0; number < config_.n_layer; ++number) {
        const Layer& layer = layers_[number];
        const bool own_norm = layer.mlp_norm.weight;
        Input packed = input(work.packed, layer.q, tokens), mlp_packed = input(work.mlp_packed, layer.up, tokens);
        Input attended = input(work.attended_packed, layer.out, tokens);
        Input hidden = input(work.hidden_packed, layer.down, tokens);
        const Input& mlp_input = own_norm ? mlp_packed : packed;

        const Product q{{{layer.q, &packed}}, work.q}, k{{{layer.k, &packed}}, work.k}, v{{{layer.v, &packed}}, work.v};
        const Product up{{{layer.up, &mlp_input}}, work.up}, gate{{{layer.gate, &mlp_input}}, work.gate};
        const std::vector<Product> mlp = layer.gate.matrix ? std::vector{up, gate} : std::vector{up};
        const float* smoothing = layer.down.smoothing;
        const Source activated = layer.gate.matrix ? Source{work.gate.data, work.up.data, config_.activation, smoothing}
                                                   : Source{work.up.data, nullptr, config_.activation, smoothing};

        normalise(layer.norm, tokens, work.h, packed);
        std::vector<Product> first{q, k, v};
        if (config_.parallel) {
            if (own_norm) normalise(layer.mlp_norm, tokens, work.mlp_h, mlp_packed);
            first.insert(first.end(), mlp.begin(), mlp.end());
        }
        multiply(first, tokens);
        attention(layer, number, thread, batch);
        const Source from_heads{work.attended.data, nullptr, Activation::none, layer.out.smoothing};
        pack(from_heads, work.attended.stride, attended_width, tokens, attended);
        if (!config_.parallel) {
            const Product out{{{layer.out, &attended}}, work.x, true};
            multiply({&out, 1}, tokens);
            normalise(layer.mlp_norm, tokens, work.mlp_h, mlp_packed);
            multiply(mlp, tokens);
        }
        pack(activated, work.up.stride, config_.d_hidden, tokens, hidden);
        const Product down{{{layer.down, &hidden}}, work.x, true};
        const Product both{{{layer.out, &attended}, {layer.down, &hidden}}, work.x, true};
        multiply({config_.parallel ? &both : &down, 1}, tokens);
    }
    if (!wanted) return;
    Input packed = input(work.packed, head_, wanted);
    pool_.share(wanted, 1, [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            const float* x = work.x[batch.wanted[row]];
            float* normed = results.hidden ? results.hidden + ptrdiff_t(row) * config_.d_model : work.h[row];
            kernels_.norm(x, norm_.weight, norm_.bias, config_.norm_eps, config_.d_model, normed);
            if (results.hidden) continue;
            kernels_.pack({work.h[row], nullptr, Activation::none, norm_.smoothing}, row, 0, packed.groups, packed);
        }
    });
    if (results.hidden) return;
    if (results.scores) return score(thread, packed, results);
    const Product head{{{head_, &packed}}, {results.logits, int(results.stride)}};
    multiply({&head, 1}, wanted);
}

/// The logits of a few columns are made and used while they are in the cache; all of them are never stored.
void Decoder::score(int thread, const Input& packed, const Results& results) {
    Workspace& work = *work_;
    constexpr int BLOCKS = SCORE_COLUMNS / BLOCK;
    const int rows = packed.tokens, blocks = head_.matrix->blocks(), chunks = (blocks + BLOCKS - 1) / BLOCKS;
    float* const logits = work.some_logits[thread].data();
    const auto targets = [&](int row) { return std::pair(row ? work.score_ends[row - 1] : 0, work.score_ends[row]); };
    pool_.share(chunks, 1, [&](int first, int last) {
        for (int chunk = first; chunk < last; ++chunk) {
            const int column = chunk * SCORE_COLUMNS, columns = std::min(SCORE_COLUMNS, config_.vocab_size - column);
            const int begin = chunk * BLOCKS, end = std::min(begin + BLOCKS, blocks);
            kernels_.matmul(*head_.matrix, packed, begin, end, head_.bias, false, logits - column, SCORE_COLUMNS);
            for (int row = 0; row < rows; ++row) {
                const float* of_row = logits + ptrdiff_t(row) * SCORE_COLUMNS;
                work.partials[size_t(chunk) * rows + row] = kernels_.partial(of_row, columns);
                const auto [from, to] = targets(row);
                for (int i = from; i < to; ++i)
                    if (const int at = results.targets[i] - column; at >= 0 && at < columns) results.scores[2 * i] = of_row[at];
            }
        }
    });
    pool_.share(rows, 16, [&](int first, int last) {
        for (int row = first; row < last; ++row) {
            float maximum = work.partials[row].maximum;
            for (int chunk = 1; chunk < chunks; ++chunk)
                maximum = std::max(maximum, work.partials[size_t(chunk) * rows + row].maximum);
            double total = 0;
            for (int chunk = 0; chunk < chunks; ++chunk) {
                const Partial& part = work.partials[size_t(chunk) * rows + row];
                total += double(part.sum) * std::exp(part.maximum - maximum);
            }
            const double log_total = std::log(total);
            const auto [from, to] = targets(row);
            for (int i = from; i < to; ++i) {
                const float logit = results.scores[2 * i];
                results.scores[2 * i] = float(double(logit) - maximum - log_total);
                results.scores[2 * i + 1] = maximum - logit;
            }
        }
    });
}

}  // namespace bluejay
