// Draws tokens from logits. The filters are those of bluejay.infer.sampling, in the same order.

#pragma once
#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <vector>

#include "kernels.h"

namespace bluejay {

/// How the next token of a sample is drawn; fields as in bluejay.infer.params.SamplingParams.
struct Filters {
    double temperature, top_k, top_p, min_p, typical_p;
};

class Sampler {
   public:
    explicit Sampler(const Kernels& kernels) : kernels_(kernels) {}

    /// A token of `size`, drawn with a number between 0 and 1; -1 if a logit is not finite, unless some are `masked` by
    /// negative infinity.
    int draw(const float* logits, int size, const Filters& filters, double uniform, bool masked) {
        const Likeliest top = kernels_.likeliest(logits, size);
        if (!top.finite && !masked) return -1;
        if (filters.temperature == 0) return top.index;
        weights_.resize(round_up(size, BLOCK));
        kernels_.weights(logits, size, top.logit, float(1 / std::max(filters.temperature, 1e-30)), weights_.data());
        const float largest = weights_[top.index];
        if (filters.top_k > 0 && filters.top_k < size) keep_largest(logits, size, top.logit, int(filters.top_k));
        if (filters.top_p < 1) {
            // The tokens below this weight have together less than what is left out.
            const double least = (1 - filters.top_p) * total(size) / size;
            keep_mass(weights_.data(), size, float(least), largest, filters.top_p);
        }
        if (filters.min_p > 0) remove_below(weights_.data(), size, float(filters.min_p * largest));
        if (filters.typical_p < 1) keep_typical(size, filters.typical_p);
        return token_at(size, uniform);
    }

   private:
    /// The order of floats as the order of integers.
    static int64_t ordered(float value) {
        const int32_t bits = std::bit_cast<int32_t>(value);
        return bits < 0 ? -int64_t(bits & INT32_MAX) : bits;
    }
    static float unordered(int64_t order) {
        return order < 0 ? -std::bit_cast<float>(int32_t(-order)) : std::bit_cast<float>(int32_t(order));
    }

    struct Border {
        float least;
        Mass above;
        bool tie;
    };

    /// The largest key, from `least` to `largest`, such that the tokens from it on are `enough`; the mass above it; and
    /// whether several tokens may have it.
    template <class Enough>
    Border border(const float* keys, int size, float least, float largest, const Enough& enough) const {
        int64_t low = ordered(least), high = ordered(largest) + 1;
        int count = size;
        Mass above{0, 0};
        while (high - low > 1 && count - above.count > 1) {
            const int64_t middle = low + (high - low) / 2;
            const Mass found = kernels_.mass(keys, weights_.data(), size, unordered(middle));
            if (enough(found))
                low = middle, count = found.count;
            else
                high = middle, above = found;
        }
        return {unordered(low), above, count - above.count > 1};
    }

    double total(int size) const { return kernels_.mass(weights_.data(), weights_.data(), size, 0).sum; }

    void remove_below(const float* keys, int size, float least) {
        for (int i = 0; i < size; ++i) weights_[i] = keys[i] < least ? 0 : weights_[i];
    }

    /// Keeps the `n` tokens of the largest logits, and those that equal the last of them.
    void keep_largest(const float* logits, int size, float largest, int n) {
        const auto enough = [&](Mass mass) { return mass.count >= n; };
        remove_below(logits, size, border(logits, size, -INFINITY, largest, enough).least);
    }

    /// Keeps the tokens of the largest keys until they have a share of the mass: one at least, of equal ones the first.
    void keep_mass(const float* keys, int size, float least, float largest, double share) {
        const double wanted = share * total(size);
        const auto enough = [&](Mass mass) { return mass.count > 0 && mass.sum >= wanted; };
        const Border found = border(keys, size, least, largest, enough);
        Mass kept = found.above;
        for (int i = 0; found.tie && i < size; ++i)
            if (keys[i] == found.least) {
                if (enough(kept)) weights_[i] = 0;
                kept.sum += weights_[i], ++kept.count;
            }
        remove_below(keys, size, found.least);
    }

    /// The tokens whose surprise is closest to its expectation, until their probabilities reach `share`.
    void keep_typical(int size, double share) {
        const double sum = total(size);
        double expected = 0;
        keys_.assign(size, -INFINITY);
        for (int i = 0; i < size; ++i)
            if (weights_[i] > 0) {
                keys_[i] = float(-std::log(weights_[i] / sum));
                expected += weights_[i] / sum * keys_[i];
            }
        for (float& key : keys_)
            if (key > -INFINITY) key = -std::abs(key - float(expected));
        keep_mass(keys_.data(), size, -INFINITY, 0, share);
    }

    static constexpr int RUN = 256;

    /// The token at which the sum of weights exceeds `uniform` of the whole.
    int token_at(int size, double uniform) {
        sums_.clear();
        double total = 0;
        for (int from = 0; from < size; from += RUN) {
            const float* of_run = weights_.data() + from;
            total += sums_.emplace_back(kernels_.mass(of_run, of_run, std::min(RUN, size - from), 0).sum);
        }
        const double wanted = uniform * total;
        double before = 0, reached = 0;
        int run = 0, last = 0;
        for (int i = 0; i < int(sums_.size()) && reached <= wanted; ++i)
            if (sums_[i] > 0) run = i, before = reached, reached += sums_[i];
        for (int i = run * RUN; i < std::min(size, run * RUN + RUN) && before <= wanted; ++i)
            if (weights_[i] > 0) before += weights_[last = i];
        return last;
    }

    const Kernels& kernels_;
    std::vector<float> weights_, keys_;
    std::vector<double> sums_;
};

}  // namespace bluejay
