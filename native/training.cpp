// The training kernels as functions of bluejay._native, for torch's tensors.
//
// Threads come from OpenMP because torch's do: both use the same runtime, whereas a second pool would wait for cores on
// which the first one spins.

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdlib>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#if __has_include(<malloc.h>)
#include <malloc.h>
#endif

#include "decoder.h"
#include "training.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bluejay {
struct Bfloat16 {
    Bf16 bits;
};
}  // namespace bluejay

template <>
struct nanobind::detail::dtype_traits<bluejay::Bfloat16> {
    static constexpr dlpack::dtype value{uint8_t(dlpack::dtype_code::Bfloat), 16, 1};
    static constexpr auto name = const_name("bfloat16");
};

namespace bluejay {
namespace {

template <class T, int Dimensions>
using Array = nb::ndarray<T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;
template <int Dimensions>
using Bf16s = Array<Bfloat16, Dimensions>;
template <int Dimensions>
using Floats = Array<float, Dimensions>;

template <class... Kind>
auto* at(const nb::ndarray<Kind...>& array) {
    using T = typename nb::ndarray<Kind...>::Scalar;
    if constexpr (std::is_same_v<T, Bfloat16>)
        return reinterpret_cast<Bf16*>(array.data());
    else
        return array.data();
}
template <class A>
auto at(const std::optional<A>& array) -> decltype(at(*array)) {
    return array ? at(*array) : nullptr;
}

void require(bool holds, const char* what) {
    if (!holds) throw std::invalid_argument(what);
}
/// The fastest kernels; those of AVX-512 where BLUEJAY_ISA says so, as for the engine.
const TrainingKernels& kernels() {
    const char* isa = std::getenv("BLUEJAY_ISA");
    const TrainingKernels* amx = isa && std::string(isa) == "avx512" ? nullptr : amx_training_kernels();
    return amx ? *amx : *avx512_training_kernels();
}

/// Runs `body(part)` for parts 0 .. parts - 1. A part is the same whatever the number of threads.
template <class Body>
void run_parts(int parts, int threads, const Body& body) {
    nb::gil_scoped_release release;
    (void)threads;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (int part = 0; part < parts; ++part) body(part);
}
/// The contiguous range of a part.
struct Range {
    size_t first, count;
    Range(size_t total, int part, int parts) : first(total * part / parts), count(total * (part + 1) / parts - first) {}
};

/// Adds the sums of all parts, (parts, width), to `to` in the order of the parts.
void add_partial_sums(const std::vector<float>& partial, size_t width, float* to) {
    for (size_t from = 0; from < partial.size(); from += width)
        for (size_t i = 0; i < width; ++i) to[i] += partial[from + i];
}

struct Sequences {
    Attention shape;
    int count;
    const int32_t* first_visible;
    const float *cos, *sin;
    size_t angle_stride;  // from one sequence's angles to the next's; 0 if all have the same

    Sequences(const Bf16s<4>& q, const Bf16s<4>& k, const Bf16s<4>& v, const std::optional<Floats<3>>& cosines,
              const std::optional<Floats<3>>& sines, bool rotate_half, 
              const std::optional<Array<int32_t, 2>>& firsts, float scale)
        : shape{}, count(int(q.shape(0))), first_visible(at(firsts)), cos(at(cosines)), sin(at(sines)), angle_stride(0) {
        const int T = int(q.shape(1)), H = int(q.shape(3));
        shape = {T, int(q.shape(2)), int(k.shape(2)), H, 0, rotate_half, scale, nullptr, nullptr, nullptr};
        for (const Bf16s<4>* each : {&k, &v})
            require(each->shape(0) == q.shape(0) && int(each->shape(1)) == T && int(each->shape(3)) == H &&
                        each->shape(2) == k.shape(2),
                    "queries, keys and values must belong to the same sequences");
        require(H % 16 == 0 && H <= 1024 && shape.K > 0 && shape.N % shape.K == 0,
                "a head's width must be a multiple of 16 up to 1024, and the number of query heads a multiple of the key heads");
        if (cosines) {
            require(sines && int(cosines->shape(1)) == T && int(sines->shape(1)) == T && cosines->shape(2) == sines->shape(2) &&
                        cosines->shape(0) == sines->shape(0) && 2 * int(cosines->shape(2)) <= H &&
                        (cosines->shape(0) == 1 || int(cosines->shape(0)) == count),
                    "angles must belong to the same sequences");
            shape.R = int(cosines->shape(2));
            angle_stride = cosines->shape(0) == 1 ? 0 : size_t(T) * shape.R;
        }
        require(!firsts || (int(firsts->shape(0)) == count && int(firsts->shape(1)) == T), "first_visible must belong to the same sequences");
    }

    Attention operator[](int sequence) const {
        Attention one = shape;
        one.first_visible = first_visible ? first_visible + size_t(sequence) * one.T : nullptr;
        one.cos = cos + sequence * angle_stride, one.sin = sin + sequence * angle_stride;
        return one;
    }
    size_t queries(int sequence) const { return size_t(sequence) * shape.T * shape.N * shape.H; }
    size_t keys(int sequence) const { return size_t(sequence) * shape.T * shape.K * shape.H; }

    /// `body(attention, sequence, kv_head, space)` for every key/value head of every sequence.
    template <class Body>
    void each(int threads, const Body& body) const {
        const size_t bytes = kernels().attention_space(shape);
        const int parts = std::min(threads, count * shape.K);
        std::vector<std::byte> spaces(parts * bytes + 64);
        std::byte* space = spaces.data() + (64 - reinterpret_cast<uintptr_t>(spaces.data()) % 64);
        run_parts(parts, threads, [&](int part) {
            const Range range(size_t(count) * shape.K, part, parts);
            for (size_t i = range.first; i < range.first + range.count; ++i)
                body((*this)[int(i / shape.K)], int(i / shape.K), int(i % shape.K), space + part * bytes);
        });
    }
};

void attend(const Bf16s<4>& q, const Bf16s<4>& k, const Bf16s<4>& v, const std::optional<Floats<3>>& cos,
            const std::optional<Floats<3>>& sin, bool rotate_half, const std::optional<Array<int32_t, 2>>& first_visible, float scale,
            const Bf16s<4>& out, const Floats<3>& lse, int threads) {
    const Sequences sequences(q, k, v, cos, sin, rotate_half, first_visible, scale);
    require(out.size() == q.size() && lse.size() == q.size() / q.shape(3), "the output has the wrong shape");
    sequences.each(threads, [&](const Attention& attention, int b, int head, std::byte* space) {
        const AttentionInputs in{at(q) + sequences.queries(b), at(k) + sequences.keys(b), at(v) + sequences.keys(b)};
        kernels().attend(attention, in, head, at(out) + sequences.queries(b),
                         at(lse) + sequences.queries(b) / sequences.shape.H, space);
    });
}

void attend_backward(const Bf16s<4>& q, const Bf16s<4>& k, const Bf16s<4>& v, const std::optional<Floats<3>>& cos,
                     const std::optional<Floats<3>>& sin, bool rotate_half, const std::optional<Array<int32_t, 2>>& first_visible,
                     float scale, const Bf16s<4>& out, const Floats<3>& lse, const Bf16s<4>& d_out, const Bf16s<4>& dq,
                     const Bf16s<4>& dk, const Bf16s<4>& dv, int threads) {
    const Sequences sequences(q, k, v, cos, sin, rotate_half, first_visible, scale);
    for (const Bf16s<4>* each : {&out, &d_out, &dq}) require(each->size() == q.size(), "gradients have the wrong shape");
    for (const Bf16s<4>* each : {&dk, &dv}) require(each->size() == k.size(), "gradients have the wrong shape");
    require(lse.size() == q.size() / q.shape(3), "gradients have the wrong shape");
    sequences.each(threads, [&](const Attention& attention, int b, int head, std::byte* space) {
        const size_t by_query = sequences.queries(b), by_key = sequences.keys(b);
        const AttentionInputs in{at(q) + by_query, at(k) + by_key, at(v) + by_key};
        const AttentionGradients gradients{at(out) + by_query, at(d_out) + by_query, at(lse) + by_query / attention.H,
                                           at(dq) + by_query,  at(dk) + by_key,      at(dv) + by_key};
        kernels().attend_backward(attention, in, gradients, head, space);
    });
}

template <class X>
NormRows norm_rows(const X& x, const Floats<1>& weight, const std::optional<Floats<1>>& bias, float eps) {
    const size_t width = weight.size();
    require(width % 16 == 0 && x.shape(1) == width && (!bias || bias->size() == width), "the width of rows must be a multiple of 16");
    constexpr bool bf16 = std::is_same_v<X, Bf16s<2>>;
    return {at(x), bf16, at(weight), at(bias), eps, int(x.shape(0)), int(width)};
}
NormRows select_rows(const NormRows& all, const Range& range) {
    NormRows some = all;
    some.x = static_cast<const std::byte*>(all.x) + range.first * all.width * (all.x_is_bf16 ? 2 : 4);
    some.rows = int(range.count);
    return some;
}

template <class X>
void norm(const X& x, const Floats<1>& weight, const std::optional<Floats<1>>& bias, float eps, const Bf16s<2>& y, int threads) {
    const NormRows rows = norm_rows(x, weight, bias, eps);
    require(y.size() == x.size(), "the output has the wrong shape");
    run_parts(threads, threads, [&](int part) {
        const Range range(rows.rows, part, threads);
        kernels().norm(select_rows(rows, range), at(y) + range.first * rows.width);
    });
}

template <class X>
void norm_backward(const X& x, const Floats<1>& weight, const std::optional<Floats<1>>& bias, float eps, const Bf16s<2>& dy,
                   const X& dx, const Floats<1>& d_weight, const std::optional<Floats<1>>& d_bias, int threads) {
    const NormRows rows = norm_rows(x, weight, bias, eps);
    require(dy.size() == x.size() && dx.size() == x.size() && d_weight.size() == weight.size() &&
                (!d_bias || d_bias->size() == weight.size()) && bool(bias) == bool(d_bias),
            "gradients have the wrong shape");
    std::vector<float> weights(size_t(threads) * rows.width), biases(bias ? weights.size() : 0);
    run_parts(threads, threads, [&](int part) {
        const Range range(rows.rows, part, threads);
        const size_t from = range.first * rows.width, own = size_t(part) * rows.width;
        kernels().norm_backward(select_rows(rows, range), at(dy) + from, at(dx) + from, weights.data() + own,
                                bias ? biases.data() + own : nullptr);
    });
    add_partial_sums(weights, rows.width, at(d_weight));
    if (bias) add_partial_sums(biases, rows.width, at(*d_bias));
}

void activate(const std::string& activation, const Bf16s<1>& x, const Bf16s<1>& y, int threads) {
    const Activation kind = activation_named(activation);
    require(x.size() == y.size(), "the output has the wrong shape");
    run_parts(threads, threads, [&](int part) {
        const Range range(x.size(), part, threads);
        kernels().activate(kind, at(x) + range.first, range.count, at(y) + range.first);
    });
}

void activate_backward(const std::string& activation, const Bf16s<1>& x, const Bf16s<1>& dy, const Bf16s<1>& dx, int threads) {
    const Activation kind = activation_named(activation);
    require(x.size() == dy.size() && x.size() == dx.size(), "gradients have the wrong shape");
    run_parts(threads, threads, [&](int part) {
        const Range range(x.size(), part, threads);
        kernels().activate_backward(kind, at(x) + range.first, at(dy) + range.first, range.count, at(dx) + range.first);
    });
}

double loss(const Bf16s<2>& logits, const std::optional<Floats<1>>& bias, const Array<int64_t, 1>& targets,
            const std::optional<Floats<1>>& weights, float scale, float z_loss,
            const std::optional<Floats<1>>& d_bias, int threads) {
    const size_t n = logits.shape(0), V = logits.shape(1);
    require(targets.size() == n && (!weights || weights->size() == n) && (!bias || bias->size() == V) &&
                (!d_bias || d_bias->size() == V),
            "targets, weights and biases must fit the logits");
    for (size_t i = 0; i < n; ++i) require(at(targets)[i] >= 0 && at(targets)[i] < int64_t(V), "a target is outside the vocabulary");
    std::vector<float> biases(d_bias ? threads * V : 0);
    std::vector<double> losses(threads);
    run_parts(threads, threads, [&](int part) {
        const Range range(n, part, threads);
        const LossRows rows{int(range.count), int(V), at(bias), at(targets) + range.first,
                            weights ? at(*weights) + range.first : nullptr, scale, z_loss};
        losses[part] = kernels().loss(rows, at(logits) + range.first * V, d_bias ? biases.data() + part * V : nullptr);
    });
    if (d_bias) add_partial_sums(biases, V, at(*d_bias));
    double total = 0;
    for (double each : losses) total += each;
    return total;
}

/// How many parts the outputs and the inputs of a gradient are divided into: at least `threads` in all, which read as little
/// as they can, and whose inputs stay in the second-level cache.
std::pair<int, int> division(int outputs, int inputs, int threads) {
    constexpr int MOST_INPUTS = 512;
    std::pair<int, int> best{threads, 1};
    double least = std::numeric_limits<double>::infinity();
    for (int of_inputs = 1; of_inputs <= threads; ++of_inputs) {
        const int of_outputs = (threads + of_inputs - 1) / of_inputs;
        const double read = 3.0 * outputs / of_outputs + double(inputs) / of_inputs;  // outputs are transposed, too
        if (read < least) least = read, best = {of_outputs, of_inputs};
    }
    const int least_parts = (inputs + MOST_INPUTS - 1) / MOST_INPUTS;
    return {std::min(outputs / 16, best.first), std::min(inputs / 16, std::max(best.second, least_parts))};
}

void weight_gradient(const Bf16s<2>& dy, const Bf16s<2>& x, const Floats<2>& d_weight, int threads) {
    const int outputs = int(d_weight.shape(0)), inputs = int(d_weight.shape(1));
    require(dy.shape(0) == x.shape(0) && int(dy.shape(1)) == outputs && int(x.shape(1)) == inputs,
            "the gradient has the wrong shape");
    require(outputs > 0 && inputs > 0 && outputs % 16 == 0 && inputs % 16 == 0, "the sides of the matrix must be multiples of 16");
    require(kernels().weight_gradient != nullptr, "this processor has no kernel for the gradient of a matrix");
    const auto [of_outputs, of_inputs] = division(outputs, inputs, threads);
    run_parts(of_outputs * of_inputs, threads, [&, of_outputs = of_outputs, of_inputs = of_inputs](int part) {
        const Range out(outputs / 16, part / of_inputs, of_outputs), in(inputs / 16, part % of_inputs, of_inputs);
        const WeightGradient gradient{at(dy), at(x), int(dy.shape(0)), outputs, inputs, at(d_weight),
                                      16 * int(out.first), 16 * int(out.first + out.count),
                                      16 * int(in.first),  16 * int(in.first + in.count)};
        const auto space = std::make_unique_for_overwrite<std::byte[]>(kernels().weight_gradient_space(gradient) + 64);
        kernels().weight_gradient(gradient, space.get() + (64 - reinterpret_cast<uintptr_t>(space.get()) % 64));
    });
}

/// Makes malloc keep the memory that a step frees for the next one. New memory from the system has to be zeroed first.
void keep_memory() {
#ifdef M_MMAP_THRESHOLD
    mallopt(M_MMAP_THRESHOLD, 1 << 30);
    mallopt(M_TRIM_THRESHOLD, 0x7FFFFFFF);
#endif
}

}  // namespace

void bind_training(nb::module_& m) {
    // Without noconvert, an array of another type would be copied and writes to it lost.
    const auto array = [](const char* name) { return nb::arg(name).noconvert(); };
    m.def("trains", [] { return avx512_training_kernels() != nullptr; });
    m.def("keep_memory", &keep_memory);
    m.def("has_weight_gradient", [] { return avx512_training_kernels() && kernels().weight_gradient; });
    m.def("weight_gradient", &weight_gradient, array("dy"), array("x"), array("d_weight"), "threads"_a);
    m.def("attend", &attend, array("q"), array("k"), array("v"), array("cos").none(), array("sin").none(), "rotate_half"_a, array("first_visible").none(), "scale"_a,
          array("out"), array("lse"), "threads"_a);
    m.def("attend_backward", &attend_backward, array("q"), array("k"), array("v"), array("cos").none(), array("sin").none(), "rotate_half"_a,
          array("first_visible").none(), "scale"_a, array("out"), array("lse"), array("d_out"), array("dq"), array("dk"), array("dv"), "threads"_a);
    m.def("norm", &norm<Floats<2>>, array("x"), array("weight"), array("bias").none(), "eps"_a, array("y"), "threads"_a);
    m.def("norm", &norm<Bf16s<2>>, array("x"), array("weight"), array("bias").none(), "eps"_a, array("y"), "threads"_a);
    m.def("norm_backward", &norm_backward<Floats<2>>, array("x"), array("weight"), array("bias").none(), "eps"_a, array("dy"), array("dx"),
          array("d_weight"), array("d_bias").none(), "threads"_a);
    m.def("norm_backward", &norm_backward<Bf16s<2>>, array("x"), array("weight"), array("bias").none(), "eps"_a, array("dy"), array("dx"),
          array("d_weight"), array("d_bias").none(), "threads"_a);
    m.def("activate", &activate, "activation"_a, array("x"), array("y"), "threads"_a);
    m.def("activate_backward", &activate_backward, "activation"_a, array("x"), array("dy"), array("dx"), "threads"_a);
    m.def("loss", &loss, array("logits"), array("bias").none(), array("targets"), array("weights").none(), "scale"_a, "z_loss"_a,
          array("d_bias").none(), "threads"_a);
}

}  // namespace bluejay
