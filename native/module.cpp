// The Python module bluejay._native.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <chrono>
#include <cstring>
#include <optional>
#include <stdexcept>

#include "decoder.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bluejay {
void bind_training(nb::module_& m);  // training.cpp

namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<const int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Writable = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const int32_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

/// What this processor runs, best first.
std::vector<const Kernels*> available() {
    std::vector<const Kernels*> found;
    for (const Kernels* kernels : {avx512_kernels(), avx2_kernels(), neon_kernels(), portable_kernels()})
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

template <class T>
T named(const std::string& name, std::initializer_list<const char*> names) {
    int index = 0;
    for (const char* each : names) {
        if (name == each) return T(index);
        ++index;
    }
    throw std::invalid_argument("unknown name " + name);
}
Format format_named(const std::string& name) { return named<Format>(name, {"f32", "bf16", "q8", "q4"}); }
Format cache_named(const std::string& name) { return named<Format>(name, {"f32", "bf16", "int8"}); }

/// Weights and the arrays that hold them.
struct Store {
    Weights weights;
    std::vector<Bytes> arrays;

    const uint8_t* keep(const Bytes& array, size_t bytes, size_t alignment, const std::string& name) {
        if (array.size() != bytes)
            throw std::invalid_argument(name + " has " + std::to_string(array.size()) + " bytes; its shape makes it " +
                                        std::to_string(bytes));
        if (reinterpret_cast<uintptr_t>(array.data()) % alignment)
            throw std::invalid_argument(name + " does not stand at a multiple of " + std::to_string(alignment) + " bytes");
        arrays.push_back(array);
        return array.data();
    }

    void matrix(const std::string& name, const std::string& format, int rows, int columns, const Bytes& data,
                std::optional<Bytes> scales, std::optional<Bytes> codes) {
        Matrix matrix{format_named(format), rows, columns, nullptr, nullptr, nullptr};
        const bool quantised = matrix.format == Format::q8 || matrix.format == Format::q4;
        if (rows < 1 || columns < 1) throw std::invalid_argument(name + " has no rows or no columns");
        if (quantised && !scales) throw std::invalid_argument(name + " has no scales");
        if (matrix.format == Format::q4 && !codes) throw std::invalid_argument(name + " has no codes");
        matrix.data = keep(data, matrix.blocks() * matrix.block_bytes(), 4, name);
        if (quantised) {
            const size_t bytes = matrix.blocks() * matrix.block_scale_bytes();
            matrix.scales = keep(*scales, bytes, sizeof(uint16_t), name + "'s scales");
        }
        if (matrix.format == Format::q4) matrix.codes = keep(*codes, 16, 1, name + "'s codes");
        weights.matrices[name] = matrix;
    }

    void lookup(const std::string& name, const std::string& format, int rows, int columns, const Bytes& data) {
        const Format stored = format_named(format);
        if (rows < 1 || columns < 1 || bits_of(stored) < 16)
            throw std::invalid_argument(name + " is not a table of f32 or bf16 rows");
        const size_t bytes = size_t(rows) * columns * bits_of(stored) / 8;
        weights.lookups[name] = {stored, rows, columns, keep(data, bytes, 2, name)};
    }

    void vector(const std::string& name, const Floats& values) {
        std::vector<float> padded(round_up(int(values.size()), GROUP));
        std::memcpy(padded.data(), values.data(), values.size() * sizeof(float));
        weights.vectors[name] = std::move(padded);
    }
};

struct Engine {
    Store store;  // outlives the decoder
    Decoder decoder;
    int vocab_size;

    Engine(const Config& config, const Store& from, const std::string& isa, int threads, int n_pages, const std::string& cache)
        : store(from),
          decoder(config, store.weights, kernels_named(isa), threads, n_pages, cache_named(cache)),
          vocab_size(config.vocab_size) {}

    auto step(const Ints& tokens, const Ints& starts, const Ints& lengths, const Table& pages, const Ints& wanted) {
        const size_t stride = round_up(vocab_size, BLOCK), rows = wanted.size();
        auto* logits = new float[rows * stride];
        nb::capsule owner(logits, [](void* at) noexcept { delete[] static_cast<float*>(at); });
        const auto span = [](const auto& array) { return std::span<const int32_t>(array.data(), array.size()); };
        const Batch batch{span(tokens), span(starts), span(lengths), span(pages), span(wanted), int(pages.shape(1))};
        {
            nb::gil_scoped_release release;
            decoder.step(batch, logits, ptrdiff_t(stride));
        }
        return nb::ndarray<nb::numpy, float, nb::ndim<2>>(logits, {rows, size_t(vocab_size)}, owner, {int64_t(stride), 1});
    }
};

/// Quantises rows of whole groups; see bluejay.gpt.quantization.packing.
void quantize(const Floats& weights, const Floats& importance, int rows, const std::string& format, const Floats& code,
              Writable<uint8_t> codes, Writable<uint8_t> scales, int threads) {
    const Format kind = format_named(format);
    const size_t columns = rows > 0 ? weights.size() / rows : 0, groups = columns / GROUP;
    const size_t row_scales = 2 * (groups + (kind == Format::q4));
    if (rows < 0 || columns * rows != weights.size() || columns % GROUP || codes.size() != weights.size() ||
        scales.size() != rows * row_scales || code.size() != 16 || importance.size() != columns)
        throw std::invalid_argument("weights come in rows of groups of 64, with 64 codes and two bytes of scales each");
    nb::gil_scoped_release release;
    const Kernels& kernels = *available().front();
    Pool pool(threads);
    pool.run([&](int) {
        pool.share(rows, 16, [&](int first, int last) {
            for (size_t row = first; row < size_t(last); ++row)
                kernels.quantize(weights.data() + row * columns, importance.data(), int(groups), kind, code.data(),
                                 codes.data() + row * columns, scales.data() + row * row_scales);
        });
    });
}

/// Seconds that a reading of `bytes` takes: the bandwidth that decoding is measured against.
double read_seconds(const Bytes& bytes, const std::string& isa, int threads) {
    nb::gil_scoped_release release;
    const Kernels& kernels = kernels_named(isa);
    Pool pool(threads);
    constexpr size_t RUN = 1 << 20;
    std::atomic<uint64_t> seen{0};
    const auto start = std::chrono::steady_clock::now();
    pool.run([&](int) {
        pool.share(int(bytes.size() / RUN), 4, [&](int first, int last) {
            seen ^= kernels.read(bytes.data() + first * RUN, (last - first) * RUN);
        });
    });
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

}  // namespace
}  // namespace bluejay

NB_MODULE(_native, m) {
    using namespace bluejay;
    nb::set_leak_warnings(false);  // a model that lives until the interpreter ends is no leak
    m.def("isas", [] {
        std::vector<std::string> names;
        for (const Kernels* kernels : available()) names.emplace_back(kernels->name);
        return names;
    });
    m.def("read_seconds", &read_seconds, "bytes"_a, "isa"_a, "threads"_a);
    m.def("quantize", &quantize, "weights"_a, "importance"_a, "rows"_a, "format"_a, "code"_a, "codes"_a, "scales"_a, "threads"_a);
    bind_training(m);
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
        .def_rw("halves", &Config::halves)
        .def_rw("norm_eps", &Config::norm_eps)
        .def_rw("scale", &Config::scale)
        .def_rw("window", &Config::window)
        .def_rw("local_layers", &Config::local_layers)
        .def_rw("frequencies", &Config::frequencies)
        .def_prop_rw(
            "activation", [](const Config& config) { return int(config.activation); },
            [](Config& config, const std::string& name) {
                config.activation = named<Activation>(name, {"none", "gelu_tanh", "gelu", "relu", "silu"});
            },
            nb::for_setter(nb::arg("name")));
    nb::class_<Store>(m, "Store")
        .def(nb::init<>())
        .def("matrix", &Store::matrix, "name"_a, "format"_a, "rows"_a, "columns"_a, "data"_a, "scales"_a.none(),
             "codes"_a.none())
        .def("lookup", &Store::lookup, "name"_a, "format"_a, "rows"_a, "columns"_a, "data"_a)
        .def("vector", &Store::vector, "name"_a, "values"_a);
    nb::class_<Engine>(m, "Decoder")
        .def(nb::init<const Config&, const Store&, const std::string&, int, int, const std::string&>(), "config"_a, "weights"_a,
             "isa"_a, "threads"_a, "n_pages"_a, "cache"_a)
        .def("step", &Engine::step, "tokens"_a, "starts"_a, "lengths"_a, "pages"_a, "wanted"_a)
        .def("copy_page", [](Engine& engine, int source, int target) { engine.decoder.copy_page(source, target); },
             "source"_a, "target"_a);
}
