// The Python module bluejay._native.

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "decoder.h"
#include "sampling.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bluejay {
void bind_training(nb::module_& m);  // training.cpp
void bind_trace(nb::module_& m);     // trace.cpp

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Writable = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Doubles = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using LogitRows = nb::ndarray<const float, nb::ndim<2>, nb::device::cpu>;
using Table = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

/// The kernels that this processor can run, best first.
std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found;
    for (const Kernels* kernels : {amx_kernels(), avx512_kernels(), avx2_kernels(), neon_kernels(), portable_kernels()})
        if (kernels) found.push_back(kernels);
    return found;
}

const Kernels& kernels_named(const std::string& name) {
    std::string names;
    for (const Kernels* kernels : available()) {
        if (name == kernels->name) return *kernels;
        names += std::string(names.empty() ? "" : ", ") + kernels->name;
    }
    throw std::invalid_argument("this machine has no kernels for " + name + "; it has " + names);
}

Format format_named(const std::string& name) {
    for (size_t i = 0; i < std::size(FORMATS); ++i)
        if (name == FORMATS[i].name) return Format(i);
    throw std::invalid_argument("unknown format " + name);
}
Format cache_format_named(const std::string& name) { return name == "int8" ? Format::q8 : format_named(name); }

/// Weights and the arrays that own their memory.
struct Store {
    Weights weights;
    std::vector<Bytes> arrays;

    const uint8_t* keep(const Bytes& array, size_t bytes, size_t alignment, const std::string& name) {
        if (array.size() != bytes)
            throw std::invalid_argument(name + " has " + std::to_string(array.size()) + " bytes; its shape makes it " +
                                        std::to_string(bytes));
        if (reinterpret_cast<uintptr_t>(array.data()) % alignment)
            throw std::invalid_argument(name + " is not aligned to " + std::to_string(alignment) + " bytes");
        arrays.push_back(array);
        return array.data();
    }

    void matrix(const std::string& name, const std::string& format, int rows, int columns, const Bytes& data,
                std::optional<Bytes> scales, std::optional<Bytes> codebook) {
        Matrix matrix{format_named(format), rows, columns, nullptr, nullptr, nullptr};
        const FormatTraits& needs = traits(matrix.format);
        if (rows < 1 || columns < 1) throw std::invalid_argument(name + " has no rows or no columns");
        if (needs.has_scales && !scales) throw std::invalid_argument(name + " has no scales");
        if (needs.has_codebook && !codebook) throw std::invalid_argument(name + " has no codebook");
        matrix.data = keep(data, matrix.blocks() * matrix.block_bytes(), 4, name);
        if (needs.has_scales) {
            const size_t bytes = matrix.blocks() * matrix.block_scale_bytes();
            matrix.scales = keep(*scales, bytes, sizeof(uint16_t), name + "'s scales");
        }
        if (needs.has_codebook) matrix.codebook = keep(*codebook, 16, 1, name + "'s codebook");
        weights.matrices[name] = matrix;
    }

    void lookup(const std::string& name, const std::string& format, int rows, int columns, const Bytes& data) {
        const Format stored = format_named(format);
        if (rows < 1 || columns < 1 || traits(stored).bits < 16)
            throw std::invalid_argument(name + " is not a table of f32 or bf16 rows");
        const size_t bytes = size_t(rows) * columns * traits(stored).bits / 8;
        weights.lookups[name] = {stored, rows, columns, keep(data, bytes, 2, name)};
    }

    void vector(const std::string& name, const Floats& values) {
        std::vector<float> padded(round_up(int(values.size()), GROUP));
        std::memcpy(padded.data(), values.data(), values.size() * sizeof(float));
        weights.vectors[name] = std::move(padded);
    }
};

/// A token for each row of logits (bluejay.infer.sampling), on the threads of a pool if there is one.
std::vector<int> drawn(const Kernels& kernels, Pool* pool, const LogitRows& logits, const Doubles& filters,
                       const Doubles& uniforms, bool masked) {
    const size_t rows = logits.shape(0), size = logits.shape(1);
    if (logits.stride(1) != 1 || !size || filters.size() != 5 * rows || uniforms.size() != rows)
        throw std::invalid_argument("each row of adjacent logits has five filters and a number to draw with");
    nb::gil_scoped_release release;
    std::vector<int> tokens(rows);
    const auto draw = [&](int first, int last) {
        Sampler sampler(kernels);
        for (int row = first; row < last; ++row) {
            const double* of_row = filters.data() + 5 * row;
            const Filters given{of_row[0], of_row[1], of_row[2], of_row[3], of_row[4]};
            tokens[row] = sampler.draw(logits.data() + row * logits.stride(0), int(size), given, uniforms.data()[row], masked);
        }
    };
    if (!pool || rows == 1)
        draw(0, int(rows));
    else
        pool->run([&](int) { pool->share(int(rows), int(rows - 1) / pool->threads() + 1, draw); });
    return tokens;
}

struct BoundDecoder {
    Store store;  // must outlive the decoder
    Decoder decoder;
    Config config;

    BoundDecoder(const Config& config, const Store& from, const std::string& isa, int threads, int n_pages, const std::string& cache)
        : store(from),
          decoder(config, store.weights, kernels_named(isa), threads, n_pages, cache_format_named(cache)),
          config(config) {}

    using Rows = nb::ndarray<nb::numpy, float, nb::ndim<2>>;

    /// The results of a step: a row of `width` floats for each wanted token, at a distance of `stride`.
    template <class Run>
    Rows rows(size_t count, size_t width, size_t stride, const Run& run) {
        auto* out = new float[count * stride];
        nb::capsule owner(out, [](void* at) noexcept { delete[] static_cast<float*>(at); });
        {
            nb::gil_scoped_release release;
            run(out);
        }
        return Rows(out, {count, width}, owner, {int64_t(stride), 1});
    }

    static std::span<const int32_t> span(const auto& array) { return {array.data(), array.size()}; }
    static Batch batch(const Ints& tokens, const Ints& starts, const Ints& lengths, const Table& pages, const Ints& wanted) {
        return {span(tokens), span(starts), span(lengths), span(pages), span(wanted), int(pages.shape(1))};
    }

    Rows step(const Ints& tokens, const Ints& starts, const Ints& lengths, const Table& pages, const Ints& wanted) {
        const size_t stride = round_up(config.vocab_size, BLOCK);
        return rows(wanted.size(), config.vocab_size, stride, [&](float* out) {
            decoder.step(batch(tokens, starts, lengths, pages, wanted), {.logits = out, .stride = ptrdiff_t(stride)});
        });
    }

    std::vector<int> draw(const LogitRows& logits, const Doubles& filters, const Doubles& uniforms) {
        return drawn(decoder.kernels(), &decoder.pool(), logits, filters, uniforms, false);
    }

    Rows hidden(const Ints& tokens, const Ints& starts, const Ints& lengths, const Table& pages, const Ints& wanted) {
        return rows(wanted.size(), config.d_model, config.d_model, [&](float* out) {
            decoder.step(batch(tokens, starts, lengths, pages, wanted), {.hidden = out});
        });
    }

    Rows score(const Ints& tokens, const Ints& starts, const Ints& lengths, const Table& pages, const Ints& wanted,
               const Ints& targets) {
        if (targets.size() != wanted.size()) throw std::invalid_argument("each wanted token has one target");
        return rows(wanted.size(), 2, 2, [&](float* out) {
            decoder.step(batch(tokens, starts, lengths, pages, wanted), {.targets = targets.data(), .scores = out});
        });
    }
};

/// Runs `quantize(row)` for every row on the best kernels, after a check of the arrays (bluejay.gpt.quantization).
template <class Quantize>
void quantize_rows(const Floats& weights, const Writable<uint8_t>& codes, const Writable<uint8_t>& scales, int rows,
                   size_t row_scales, int threads, const Quantize& quantize) {
    if (rows < 1 || weights.size() % (size_t(rows) * GROUP) || codes.size() != weights.size() || scales.size() != rows * row_scales)
        throw std::invalid_argument("weights, codes and scales must be rows of whole groups of 64");
    nb::gil_scoped_release release;
    const Kernels& kernels = *available().front();
    Pool pool(threads);
    pool.run([&](int) {
        pool.share(rows, 16, [&](int first, int last) {
            for (size_t row = first; row < size_t(last); ++row) quantize(kernels, row);
        });
    });
}

void quantize_q8(const Floats& weights, Writable<uint8_t> codes, Writable<uint8_t> scales, int rows, int threads) {
    const size_t columns = weights.size() / std::max(rows, 1), groups = columns / GROUP;
    quantize_rows(weights, codes, scales, rows, 2 * groups, threads, [&](const Kernels& kernels, size_t row) {
        kernels.quantize_q8(weights.data() + row * columns, int(groups), codes.data() + row * columns,
                            scales.data() + row * 2 * groups);
    });
}

void quantize_q4(const Floats& weights, const Floats& importance, Writable<uint8_t> codes, Writable<uint8_t> scales,
                 const Floats& values, const Floats& candidates, int rows, int threads) {
    const size_t columns = weights.size() / std::max(rows, 1), groups = columns / GROUP, row_scales = 2 + 2 * groups;
    if (values.size() != 16 || importance.size() != columns)
        throw std::invalid_argument("a codebook has 16 values, and each column its importance");
    const Codebook codebook{values.data(), candidates.data(), int(candidates.size())};
    quantize_rows(weights, codes, scales, rows, row_scales, threads, [&](const Kernels& kernels, size_t row) {
        kernels.quantize_q4(weights.data() + row * columns, importance.data(), int(groups), codebook,
                            codes.data() + row * columns, scales.data() + row * row_scales);
    });
}

/// Seconds to read `bytes`. The bandwidth is the upper bound that decoding is compared with.
double read_seconds(const Bytes& bytes, const std::string& isa, int threads) {
    nb::gil_scoped_release release;
    const Kernels& kernels = kernels_named(isa);
    Pool pool(threads);
    constexpr size_t CHUNK_BYTES = 1 << 20;
    std::atomic<uint64_t> seen{0};
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int) {
        pool.share(int(bytes.size() / CHUNK_BYTES), 4, [&](int first, int last) {
            seen ^= kernels.read(bytes.data() + first * CHUNK_BYTES, (last - first) * CHUNK_BYTES);
        });
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace
}  // namespace bluejay

NB_MODULE(_native, m) {
    using namespace bluejay;
    nb::set_leak_warnings(false);  // a model may live until the interpreter ends
    m.attr("sources") = BLUEJAY_SOURCES;
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : available()) names.emplace_back(kernels->name);
        return names;
    });
    m.def("read_seconds", &read_seconds, "bytes"_a, "isa"_a, "threads"_a);
    m.def("quantize_q8", &quantize_q8, "weights"_a, "codes"_a, "scales"_a, "rows"_a, "threads"_a);
    m.def("quantize_q4", &quantize_q4, "weights"_a, "importance"_a, "codes"_a, "scales"_a, "codebook"_a, "candidates"_a, "rows"_a,
          "threads"_a);
    m.def("draw", [](const LogitRows& logits, const Doubles& filters, const Doubles& uniforms, bool masked) {
        return drawn(*available().front(), nullptr, logits, filters, uniforms, masked);
    }, "logits"_a, "filters"_a, "uniforms"_a, "masked"_a);
    bind_training(m);
    bind_trace(m);
    nb::class_<Config>(m, "Config")
        .def(nb::init<>())
        .def_rw("n_layer", &Config::n_layer)
        .def_rw("d_model", &Config::d_model)
        .def_rw("n_head", &Config::n_head)
        .def_rw("n_kv_head", &Config::n_kv_head)
        .def_rw("d_head", &Config::d_head)
        .def_rw("d_hidden", &Config::d_hidden)
        .def_rw("vocab_size", &Config::vocab_size)
        .def_rw("n_ctx", &Config::n_ctx)
        .def_rw("parallel", &Config::parallel)
        .def_rw("rotate_half", &Config::rotate_half)
        .def_rw("norm_eps", &Config::norm_eps)
        .def_rw("scale", &Config::scale)
        .def_rw("window", &Config::window)
        .def_rw("local_layers", &Config::local_layers)
        .def_rw("frequencies", &Config::frequencies)
        .def_rw("rotary_factor", &Config::rotary_factor)
        .def_prop_rw(
            "activation", [](const Config& config) { return int(config.activation); },
            [](Config& config, const std::string& name) { config.activation = activation_named(name); },
            nb::for_setter(nb::arg("name")));
    nb::class_<Store>(m, "Store")
        .def(nb::init<>())
        .def("matrix", &Store::matrix, "name"_a, "format"_a, "rows"_a, "columns"_a, "data"_a, "scales"_a.none(),
             "codebook"_a.none())
        .def("lookup", &Store::lookup, "name"_a, "format"_a, "rows"_a, "columns"_a, "data"_a)
        .def("vector", &Store::vector, "name"_a, "values"_a);
    nb::class_<BoundDecoder>(m, "Decoder")
        .def(nb::init<const Config&, const Store&, const std::string&, int, int, const std::string&>(), "config"_a, "weights"_a,
             "isa"_a, "threads"_a, "n_pages"_a, "cache"_a)
        .def("step", &BoundDecoder::step, "tokens"_a, "starts"_a, "lengths"_a, "pages"_a, "wanted"_a)
        .def("draw", &BoundDecoder::draw, "logits"_a, "filters"_a, "uniforms"_a)
        .def("hidden", &BoundDecoder::hidden, "tokens"_a, "starts"_a, "lengths"_a, "pages"_a, "wanted"_a)
        .def("score", &BoundDecoder::score, "tokens"_a, "starts"_a, "lengths"_a, "pages"_a, "wanted"_a, "targets"_a)
        .def("copy_page", [](BoundDecoder& bound, int source, int target) { bound.decoder.copy_page(source, target); },
             "source"_a, "target"_a);
}
