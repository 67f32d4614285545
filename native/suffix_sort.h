// Suffix arrays by induced sorting: Nong, Zhang & Chan, "Two Efficient Algorithms for Linear Time Suffix Array
// Construction" (2011), in the arrangement of Yuta Mori's sais-lite: types follow from comparisons with the next symbol,
// and the sign of an entry says which of the two scans uses it. An induced sort is bound by the latency of memory, so
// what later entries will touch is fetched ahead.
//
// S: a suffix is of type S if it is smaller than the next one, else of type L. LMS: an S suffix after an L suffix.

#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace bluejay {

template <class Symbol>
class SuffixSort {
   public:
    /// Sorts the suffixes of text[0 .. n), whose symbols are below k, into order[0 .. n). `spare` entries after those are used
    /// as working space. A suffix that is the beginning of another comes before it. n + spare is below 2^31.
    static void run(const Symbol* text, int32_t* order, int32_t n, int32_t spare, int32_t k) {
        if (n == 0) return;
        if (n == 1) {
            order[0] = 0;
            return;
        }
        SuffixSort(text, order, n, spare, k).sort();
    }

   private:
    static constexpr int32_t AHEAD = 32;  // entries between the fetch of a line and its use

    const Symbol* const text_;
    int32_t* const order_;
    const int32_t n_, spare_, k_;
    std::vector<int32_t> own_;
    int32_t *counts_ = nullptr, *bucket_ = nullptr;  // counts_ is nullptr where there is room for one array only

    SuffixSort(const Symbol* text, int32_t* order, int32_t n, int32_t spare, int32_t k)
        : text_(text), order_(order), n_(n), spare_(spare), k_(k) {}

    /// Space for the buckets: in the spare entries where they suffice.
    void take_space() {
        if (spare_ / 2 >= k_) {
            bucket_ = order_ + n_;
            counts_ = bucket_ + k_;
        } else if (spare_ >= k_) {
            bucket_ = order_ + n_;
        } else {
            own_.resize(size_t(k_) * (k_ <= 1 << 20 ? 2 : 1));
            bucket_ = own_.data();
            if (own_.size() > size_t(k_)) counts_ = bucket_ + k_;
        }
        if (counts_) count(counts_);
    }

    void count(int32_t* counts) const {
        std::fill(counts, counts + k_, 0);
        for (int32_t i = 0; i < n_; ++i) ++counts[text_[i]];
    }
    void to_starts() {
        if (!counts_) count(bucket_);
        const int32_t* counts = counts_ ? counts_ : bucket_;
        for (int32_t c = 0, sum = 0; c < k_; ++c) {
            const int32_t size = counts[c];
            bucket_[c] = sum;
            sum += size;
        }
    }
    void to_ends() {
        if (!counts_) count(bucket_);
        const int32_t* counts = counts_ ? counts_ : bucket_;
        for (int32_t c = 0, sum = 0; c < k_; ++c) bucket_[c] = sum += counts[c];
    }

    /// Calls body(position) for each LMS suffix, from right to left.
    template <class Body>
    void each_lms(const Body& body) const {
        int32_t i = n_ - 1;
        Symbol c0 = text_[i], c1;
        do c1 = c0;
        while (0 <= --i && (c0 = text_[i]) >= c1);
        while (0 <= i) {
            do c1 = c0;
            while (0 <= --i && (c0 = text_[i]) <= c1);
            if (0 > i) break;
            body(i + 1, c1);
            do c1 = c0;
            while (0 <= --i && (c0 = text_[i]) >= c1);
        }
    }

    /// Fetches what the entries `ahead` and twice or three times as far ahead of i will touch.
    void fetch(int32_t i, int32_t direction) const {
        const auto entry = [&](int32_t steps) {
            const int64_t at = int64_t(i) + int64_t(direction) * steps * AHEAD;
            return at >= 0 && at < n_ ? order_[at] : 0;
        };
        if (const int32_t far = entry(3); far > 0) __builtin_prefetch(text_ + far - 1);
        if constexpr (sizeof(Symbol) == 4)
            if (const int32_t middle = entry(2); middle > 0) __builtin_prefetch(bucket_ + text_[middle], 1);
        if (const int32_t near = entry(1); near > 0) __builtin_prefetch(order_ + bucket_[text_[near]], 1);
    }

    void sort() {
        take_space();
        const int32_t m = sort_lms_substrings();
        if (m > 0) {
            const int32_t names = m > 1 ? name_lms_substrings(m) : 1;
            if (names < m) sort_reduced(m, names);
            if (counts_) count(counts_);
            spread_lms(m);
        } else {
            std::fill(order_, order_ + n_, 0);
        }
        induce();
    }

    /// Puts the LMS suffixes, sorted up to the next LMS suffix each, into order[0 .. m) and returns m.
    int32_t sort_lms_substrings() {
        std::fill(order_, order_ + n_, 0);
        to_ends();
        int32_t m = 0, last = 0, at = -1;
        // An entry is the position before a suffix. The leftmost LMS suffix ends no substring and stays out.
        each_lms([&](int32_t position, Symbol first) {
            if (at >= 0) order_[at] = last;
            at = --bucket_[first];
            last = position - 1;
            ++m;
        });
        if (m == 0) return 0;
        if (m == 1) {
            order_[0] = last + 1;
            return 1;
        }
        to_starts();
        {
            const Symbol c = text_[n_ - 1];
            const int32_t j = n_ - 2;
            order_[bucket_[c]++] = text_[j] < c ? ~j : j;
        }
        for (int32_t i = 0; i < n_; ++i) {
            fetch(i, 1);
            int32_t j = order_[i];
            if (0 < j) {
                const Symbol c = text_[j];
                --j;
                order_[bucket_[c]++] = text_[j] < c ? ~j : j;
                order_[i] = 0;
            } else if (j < 0) {
                order_[i] = ~j;
            }
        }
        to_ends();
        for (int32_t i = n_ - 1; 0 <= i; --i) {
            fetch(i, -1);
            int32_t j = order_[i];
            if (0 < j) {
                const Symbol c = text_[j];
                --j;
                order_[--bucket_[c]] = text_[j] > c ? ~(j + 1) : j;
                order_[i] = 0;
            }
        }
        int32_t found = 0;
        for (int32_t i = 0; found < m; ++i)
            if (const int32_t p = order_[i]; p < 0) {
                order_[i] = 0;
                order_[found++] = ~p;
            }
        std::fill(order_ + m, order_ + n_, 0);
        return m;
    }

    /// Replaces each LMS substring by its rank, from 1, in order[m + position / 2]. Returns the number of different ones.
    int32_t name_lms_substrings(int32_t m) {
        int32_t* const names = order_ + m;
        int32_t next = n_ - 1;
        each_lms([&](int32_t position, Symbol) {
            names[position >> 1] = next - position + 1 - (next == n_ - 1);
            next = position;
        });
        int32_t name = 0, before = n_, length_before = 0;
        for (int32_t i = 0; i < m; ++i) {
            if (i + 2 * AHEAD < m) {
                __builtin_prefetch(text_ + order_[i + 2 * AHEAD]);
                __builtin_prefetch(names + (order_[i + 2 * AHEAD] >> 1), 1);
            }
            const int32_t p = order_[i], length = names[p >> 1];
            bool differs = true;
            if (length == length_before && before + length < n_) {
                int32_t j = 0;
                while (j < length && text_[p + j] == text_[before + j]) ++j;
                differs = j < length;
            }
            if (differs) ++name, before = p, length_before = length;
            names[p >> 1] = name;
        }
        return name;
    }

    /// Sorts the LMS suffixes as the suffixes of the text of their names.
    void sort_reduced(int32_t m, int32_t names) {
        int32_t* const reduced = order_ + n_ + spare_ - m;
        for (int32_t i = m + (n_ >> 1), j = m - 1; m <= i; --i)
            if (i < n_ && order_[i] != 0) reduced[j--] = order_[i] - 1;
        std::vector<int32_t>().swap(own_);
        bucket_ = counts_ = nullptr;
        SuffixSort<int32_t>::run(reduced, order_, m, n_ + spare_ - 2 * m, names);
        int32_t j = m;
        each_lms([&](int32_t position, Symbol) { reduced[--j] = position; });
        for (int32_t i = 0; i < m; ++i) {
            if (i + AHEAD < m) __builtin_prefetch(reduced + order_[i + AHEAD]);
            order_[i] = reduced[order_[i]];
        }
        take_space();
    }

    /// Moves the sorted LMS suffixes from order[0 .. m) to the ends of their buckets; all other entries become 0.
    void spread_lms(int32_t m) {
        to_ends();
        int32_t i = m - 1, j = n_, p = order_[i];
        Symbol c1 = text_[p];
        do {
            const Symbol c0 = c1;
            const int32_t end = bucket_[c0];
            while (end < j) order_[--j] = 0;
            do {
                order_[--j] = p;
                if (--i < 0) break;
                p = order_[i];
                if (i >= AHEAD) __builtin_prefetch(text_ + order_[i - AHEAD]);
            } while ((c1 = text_[p]) == c0);
        } while (0 <= i);
        while (0 < j) order_[--j] = 0;
    }

    /// Induces the order of all suffixes from that of the LMS suffixes.
    void induce() {
        to_starts();
        const auto left = [&](int32_t j) {
            const Symbol c = text_[j];
            order_[bucket_[c]++] = 0 < j && text_[j - 1] < c ? ~j : j;
        };
        left(n_ - 1);
        for (int32_t i = 0; i < n_; ++i) {
            fetch_before(i, 1);
            const int32_t j = order_[i];
            order_[i] = ~j;
            if (0 < j) left(j - 1);
        }
        to_ends();
        for (int32_t i = n_ - 1; 0 <= i; --i) {
            fetch_before(i, -1);
            int32_t j = order_[i];
            if (0 < j) {
                --j;
                const Symbol c = text_[j];
                order_[--bucket_[c]] = j == 0 || text_[j - 1] > c ? ~j : j;
            } else {
                order_[i] = ~j;
            }
        }
    }

    /// As `fetch`, for entries that are suffixes themselves.
    void fetch_before(int32_t i, int32_t direction) const {
        const auto entry = [&](int32_t steps) {
            const int64_t at = int64_t(i) + int64_t(direction) * steps * AHEAD;
            return at >= 0 && at < n_ ? order_[at] : 0;
        };
        if (const int32_t far = entry(3); far > 1) __builtin_prefetch(text_ + far - 2);
        if constexpr (sizeof(Symbol) == 4)
            if (const int32_t middle = entry(2); middle > 0) __builtin_prefetch(bucket_ + text_[middle - 1], 1);
        if (const int32_t near = entry(1); near > 0) __builtin_prefetch(order_ + bucket_[text_[near - 1]], 1);
    }
};

}  // namespace bluejay
