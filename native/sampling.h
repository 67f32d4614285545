// Draws tokens from logits. The filters are those of bluejay.infer.sampling, in the same order.

#pragma once
#include <algorithm>
#include <cmath>
#include <functional>
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
        if (filters.top_k > 0 && filters.top_k < size) keep_largest(logits, size, int(filters.top_k));
        kept_.clear();
        const double total = sum(size);
        // The weights below the cut have together less than what top-p leaves out.
        const double cut = filters.top_p < 1 ? (1 - filters.top_p) * total / size : 0;
        for (int i = 0; i < size; ++i)
            if (weights_[i] > 0 && weights_[i] >= cut) kept_.push_back(i);
        if (filters.top_p < 1) keep_nucleus(filters.top_p * total);
        if (filters.min_p > 0)
            std::erase_if(kept_, [&](int i) { return weights_[i] < filters.min_p * weights_[top.index]; });
        if (filters.typical_p < 1) keep_typical(filters.typical_p);
        if (filters.top_p < 1 || filters.typical_p < 1) std::sort(kept_.begin(), kept_.end());
        double left = 0;
        for (int i : kept_) left += weights_[i];
        left *= uniform;
        for (int i : kept_)
            if ((left -= weights_[i]) < 0) return i;
        return kept_.back();
    }

   private:
    double sum(int size) const {
        double total = 0;
        for (int i = 0; i < size; ++i) total += weights_[i];
        return total;
    }

    void keep_largest(const float* logits, int size, int count) {
        order_.assign(logits, logits + size);
        std::nth_element(order_.begin(), order_.begin() + count - 1, order_.end(), std::greater<>());
        for (int i = 0; i < size; ++i)
            if (logits[i] < order_[count - 1]) weights_[i] = 0;
    }

    /// The likeliest tokens, until their weights reach `mass`; one at least.
    void keep_nucleus(double mass) {
        const auto after = [&](int a, int b) { return weights_[a] != weights_[b] ? weights_[a] < weights_[b] : a > b; };
        std::make_heap(kept_.begin(), kept_.end(), after);
        auto end = kept_.end();
        double before = 0;
        do {
            before += weights_[kept_.front()];
            std::pop_heap(kept_.begin(), end--, after);
        } while (before < mass && end != kept_.begin());
        kept_.erase(kept_.begin(), end);
    }

    /// The tokens whose surprise is closest to its expectation, until their probabilities reach `mass`.
    void keep_typical(double mass) {
        double total = 0, expected = 0;
        for (int i : kept_) total += weights_[i];
        for (int i : kept_) expected -= weights_[i] / total * std::log(weights_[i] / total);
        std::sort(kept_.begin(), kept_.end());
        distances_.resize(weights_.size());
        for (int i : kept_) distances_[i] = std::abs(-std::log(weights_[i] / total) - expected);
        std::stable_sort(kept_.begin(), kept_.end(), [&](int a, int b) { return distances_[a] < distances_[b]; });
        double before = 0;
        size_t count = 0;
        do before += weights_[kept_[count++]] / total;
        while (before < mass && count < kept_.size());
        kept_.resize(count);
    }

    const Kernels& kernels_;
    std::vector<float> weights_, order_;
    std::vector<double> distances_;
    std::vector<int> kept_;
};

}  // namespace bluejay
