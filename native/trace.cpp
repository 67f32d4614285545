// Bindings of the suffix array: building it, and searching in it (bluejay.trace).

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <unordered_map>

#include "feistel.h"
#include "suffix_index.h"
#include "suffix_sort.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace bluejay {
namespace {

template <class T>
using Array = nb::ndarray<const T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Output = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

/// An array for numpy that owns its values.
template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<1>> to_numpy(std::vector<T> values) {
    auto* kept = new std::vector<T>(std::move(values));
    nb::capsule owner(kept, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
    return nb::ndarray<nb::numpy, T, nb::ndim<1>>(kept->data(), {kept->size()}, owner);
}

/// Writes the suffix array of a text, whose symbols are below k, into `order`.
template <class Symbol>
void sort_suffixes(const Array<Symbol>& text, Output<int32_t> order, int32_t k) {
    if (order.size() != text.size() || text.size() >= size_t(1) << 31)
        throw std::invalid_argument("order needs an entry for each of fewer than 2^31 symbols");
    nb::gil_scoped_release release;
    for (size_t i = 0; i < text.size(); ++i)
        if (text.data()[i] < 0 || text.data()[i] >= k) throw std::invalid_argument("a symbol is not below k");
    SuffixSort<Symbol>::run(text.data(), order.data(), int32_t(text.size()), 0, k);
}

/// Replaces a suffix array by its packed form: the entries that are no ends of documents, `bits` each from the lowest bit on, as
/// places in a text without `ends`. Those are ascending, and the first entries are they. Returns the number of bytes.
size_t pack_suffixes(Output<int32_t> order, const Array<int64_t>& ends, int bits) {
    constexpr size_t AHEAD = 16;
    const size_t n = order.size(), n_ends = ends.size();
    if (n_ends > n || bits < 1 || bits > 31) throw std::invalid_argument("there are more ends than symbols, or too many bits");
    nb::gil_scoped_release release;
    // For each 64 places, a bit for each end, and the ends before them.
    std::vector<uint64_t> words(n / 64 + 1);
    std::vector<uint32_t> counts(n / 64 + 1);
    for (size_t i = 0; i < n_ends; ++i) words[ends.data()[i] / 64] |= uint64_t(1) << ends.data()[i] % 64;
    for (size_t i = 1; i < words.size(); ++i) counts[i] = counts[i - 1] + uint32_t(__builtin_popcountll(words[i - 1]));
    const int32_t* entries = order.data();
    auto* bytes = reinterpret_cast<uint8_t*>(order.data());
    unsigned __int128 pending = 0;
    int filled = 0;
    size_t written = 0;
    for (size_t i = n_ends; i < n; ++i) {
        if (i + AHEAD < n) {
            __builtin_prefetch(&words[entries[i + AHEAD] / 64]);
            __builtin_prefetch(&counts[entries[i + AHEAD] / 64]);
        }
        const uint32_t place = entries[i];
        const uint64_t before = words[place / 64] & ((uint64_t(1) << place % 64) - 1);
        pending |= static_cast<unsigned __int128>(place - counts[place / 64] - uint32_t(__builtin_popcountll(before))) << filled;
        filled += bits;
        if (filled >= 64) {
            // Fewer bits were written than read, so these entries are done with.
            const auto word = static_cast<uint64_t>(pending);
            std::memcpy(bytes + written, &word, 8);
            written += 8;
            pending >>= 64;
            filled -= 64;
        }
    }
    for (; filled > 0; filled -= 8, pending >>= 8) bytes[written++] = uint8_t(pending);
    return written;
}

/// Of each list of places, which ends at ends[i], the first `most` different rows. Returns for each place the number of its row
/// among all that were found, -1 if it is not; for each row its first place, and how many documents it has, which are in
/// ascending order; and for each list where its rows end, and how many there are, found or not.
auto first_rows(const Array<int64_t>& rows, const Array<int64_t>& documents, const Array<int64_t>& ends, int64_t most) {
    if (documents.size() != rows.size()) throw std::invalid_argument("each place needs its document");
    std::vector<int32_t> row_of(rows.size());
    std::vector<int64_t> firsts, copies, row_ends, counts, last;
    std::unordered_map<int64_t, int32_t> known;
    size_t place = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
        const size_t begin = firsts.size();
        known.clear();
        if (ends.data()[i] < int64_t(place) || size_t(ends.data()[i]) > rows.size())
            throw std::invalid_argument("the lists do not end in order");
        for (; place < size_t(ends.data()[i]); ++place) {
            const int64_t document = documents.data()[place];
            const bool room = int64_t(firsts.size() - begin) < most;
            const auto [found, added] = known.try_emplace(rows.data()[place], room ? int32_t(firsts.size()) : -1);
            const int32_t row = row_of[place] = found->second;
            if (row < 0) continue;
            if (added) firsts.push_back(int64_t(place)), copies.push_back(0), last.push_back(-1);
            if (document != last[row]) ++copies[row], last[row] = document;
        }
        row_ends.push_back(int64_t(firsts.size()));
        counts.push_back(int64_t(known.size()));
    }
    return std::tuple(to_numpy(std::move(row_of)), to_numpy(std::move(firsts)), to_numpy(std::move(copies)),
                      to_numpy(std::move(row_ends)), to_numpy(std::move(counts)));
}

/// Groups of near-copies in each list of sketches, which ends at ends[i]: at most `most`, each of the first sketch that is in none
/// and of those whose equal bins are at least the share `alike` of the bins that either has. Returns for each sketch the number
/// of the first one of its group, -1 where it is in none.
auto near_copies(const Array<uint64_t>& sketches, const Array<int64_t>& ends, int64_t most, double alike) {
    constexpr size_t BINS = SuffixIndex<uint16_t>::SKETCH;
    const size_t n = sketches.size() / BINS;
    std::vector<int32_t> group(n, -1);
    size_t begin = 0;
    for (size_t i = 0; i < ends.size(); ++i) {
        if (ends.data()[i] < int64_t(begin) || size_t(ends.data()[i]) > n)
            throw std::invalid_argument("the lists do not end in order");
        const size_t end = size_t(ends.data()[i]);
        int64_t groups = 0;
        for (size_t first = begin; first < end && groups < most; ++first) {
            if (group[first] >= 0) continue;
            ++groups;
            const uint64_t* a = sketches.data() + first * BINS;
            for (size_t other = first; other < end; ++other) {
                if (group[other] >= 0) continue;
                const uint64_t* b = sketches.data() + other * BINS;
                int equal = 0, either = 0;
                for (size_t bin = 0; bin < BINS; ++bin) {
                    const bool filled = (a[bin] & b[bin]) != ~uint64_t(0);
                    either += filled, equal += filled && a[bin] == b[bin];
                }
                if (equal >= alike * either) group[other] = int32_t(first);
            }
        }
        begin = end;
    }
    return to_numpy(std::move(group));
}

/// For each i the index whose image under the permutation of range(size) with the key `before` numbers[i] `after` is images[i].
auto unpermute(const Array<int64_t>& images, int64_t size, const std::string& before, const Array<int64_t>& numbers,
               const std::string& after) {
    if (images.size() != numbers.size()) throw std::invalid_argument("each image needs the number of its key");
    std::vector<int64_t> found(images.size());
    {
        nb::gil_scoped_release release;
        Feistel network(size);
        for (size_t i = 0; i < found.size(); ++i) {
            network.use(before + std::to_string(numbers.data()[i]) + after);
            found[i] = network.inverse(images.data()[i]);
        }
    }
    return to_numpy(std::move(found));
}

template <class Token>
class BoundIndex {
   public:
    BoundIndex(const Array<Token>& tokens, const Array<uint8_t>& packed, int bits, const Array<uint32_t>& starts,
               const Array<uint64_t>& samples, int64_t every, int key_tokens, int key_bits, const Array<uint32_t>& sums)
        : tokens_(tokens), packed_(packed), starts_(starts), samples_(samples), sums_(sums),
          index_(parts(bits, every, key_tokens, key_bits), tokens.data()) {}

    void longest(const Array<int32_t>& query, Output<int32_t> found) const {
        if (found.size() != query.size()) throw std::invalid_argument("each token of the query needs its length");
        nb::gil_scoped_release release;
        index_.longest(query.data(), int32_t(query.size()), found.data());
    }

    /// The ranks between which the suffixes are that begin with query[first[i] .. last[i]), for each i.
    auto find(const Array<int32_t>& query, const Array<int64_t>& first, const Array<int64_t>& last) const {
        std::vector<int64_t> low(first.size()), high(first.size());
        std::vector<SuffixSearch> searches;
        for (size_t i = 0; i < first.size(); ++i) {
            const int64_t a = first.data()[i], b = last.data()[i];
            if (a < 0 || a > b || size_t(b) > query.size()) throw std::invalid_argument("a pattern is outside the query");
            for (const bool after : {false, true}) searches.push_back({query.data() + a, int32_t(b - a), after, 0, 0});
        }
        {
            nb::gil_scoped_release release;
            index_.run(searches);
        }
        for (size_t i = 0; i < low.size(); ++i) low[i] = searches[2 * i].low, high[i] = searches[2 * i + 1].low;
        return std::pair(to_numpy(std::move(low)), to_numpy(std::move(high)));
    }

    /// Of each i the positions of the suffixes of ranks low[i] .. high[i] - 1, of more than `most` the first ranks, in ascending
    /// order; the document of each; and where the positions of each i end.
    auto places(const Array<int64_t>& low, const Array<int64_t>& high, int64_t most) const {
        if (low.size() != high.size()) throw std::invalid_argument("there are not as many first ranks as last ones");
        std::vector<int64_t> positions, documents, ends;
        {
            nb::gil_scoped_release release;
            for (size_t i = 0; i < low.size(); ++i) {
                const int64_t first = std::max<int64_t>(low.data()[i], 0), n = index_.parts().n_tokens;
                const int64_t last = std::min({high.data()[i], n, most < n ? first + most : n});
                const size_t begin = positions.size();
                for (int64_t rank = first; rank < last; ++rank) positions.push_back(index_.position(rank));
                std::sort(positions.begin() + begin, positions.end());
                ends.push_back(int64_t(positions.size()));
            }
            for (const int64_t position : positions) documents.push_back(index_.document(position));
        }
        return std::tuple(to_numpy(std::move(positions)), to_numpy(std::move(documents)), to_numpy(std::move(ends)));
    }

    auto next(int64_t low, int64_t high, int32_t length) const {
        std::vector<int32_t> tokens;
        std::vector<int64_t> counts;
        {
            nb::gil_scoped_release release;
            index_.next(std::max<int64_t>(low, 0), std::min(high, index_.parts().n_tokens), length, tokens, counts);
        }
        return std::pair(to_numpy(std::move(tokens)), to_numpy(std::move(counts)));
    }

    /// The sketches of what is around matches, (positions x SKETCH) end to end.
    auto sketches(const Array<int64_t>& positions, const Array<int64_t>& lengths, int64_t context) const {
        constexpr int SKETCH = SuffixIndex<Token>::SKETCH;
        if (positions.size() != lengths.size()) throw std::invalid_argument("each match needs its length");
        std::vector<uint64_t> bins(positions.size() * SKETCH);
        {
            nb::gil_scoped_release release;
            for (size_t i = 0; i < positions.size(); ++i) {
                const int64_t at = positions.data()[i], length = lengths.data()[i];
                if (at < 0 || length < 0 || context < 0 || at + length > index_.parts().n_tokens)
                    throw std::invalid_argument("a match is outside the tokens");
                index_.sketch(at, length, context, bins.data() + i * SKETCH);
            }
        }
        return to_numpy(std::move(bins));
    }

   private:
    SuffixArrayParts parts(int bits, int64_t every, int key_tokens, int key_bits) const {
        const int64_t n = int64_t(tokens_.size()), n_documents = int64_t(starts_.size()) - 1;
        const size_t needed = (size_t(n) * bits + 7) / 8 + 8, page = SuffixIndex<Token>::PAGE;
        const auto wrong = [](const std::string& what) { return std::invalid_argument("it is damaged: " + what); };
        if (bits < 1 || bits > 31 || every < 1 || key_tokens < 1 || key_bits < 1 || key_tokens * key_bits > 64)
            throw wrong("its header has numbers that cannot be");
        if (n >= int64_t(1) << bits || packed_.size() < needed || packed_.size() % page || sums_.size() != packed_.size() / page)
            throw wrong("it is too short for its tokens");
        if (n_documents < 1 || starts_.data()[0] != 0 || starts_.data()[n_documents] != uint64_t(n) ||
            !std::is_sorted(starts_.data(), starts_.data() + n_documents + 1))
            throw wrong("its documents do not cover its tokens in order");
        if (int64_t(samples_.size()) != (n + every - 1) / every) throw wrong("it has too few or too many samples");
        return {n, packed_.data(), bits, starts_.data(), n_documents, samples_.data(), int64_t(samples_.size()), every, key_tokens,
                key_bits, sums_.data(), int64_t(sums_.size())};
    }

    Array<Token> tokens_;
    Array<uint8_t> packed_;
    Array<uint32_t> starts_;
    Array<uint64_t> samples_;
    Array<uint32_t> sums_;
    SuffixIndex<Token> index_;
};

template <class Token>
void bind_index(nb::module_& m, const char* name) {
    nb::class_<BoundIndex<Token>>(m, name)
        .def(nb::init<const Array<Token>&, const Array<uint8_t>&, int, const Array<uint32_t>&, const Array<uint64_t>&, int64_t, int,
                      int, const Array<uint32_t>&>(),
             "tokens"_a, "packed"_a, "bits"_a, "starts"_a, "samples"_a, "every"_a, "key_tokens"_a, "key_bits"_a, "sums"_a)
        .def("longest", &BoundIndex<Token>::longest, "query"_a, "found"_a)
        .def("find", &BoundIndex<Token>::find, "query"_a, "first"_a, "last"_a)
        .def("places", &BoundIndex<Token>::places, "low"_a, "high"_a, "most"_a)
        .def("sketches", &BoundIndex<Token>::sketches, "positions"_a, "lengths"_a, "context"_a)
        .def("next", &BoundIndex<Token>::next, "low"_a, "high"_a, "length"_a);
}

}  // namespace

void bind_trace(nb::module_& m) {
    m.def("sort_suffixes_16", &sort_suffixes<uint16_t>, "text"_a, "order"_a, "k"_a);
    m.def("sort_suffixes_32", &sort_suffixes<int32_t>, "text"_a, "order"_a, "k"_a);
    m.def("pack_suffixes", &pack_suffixes, "order"_a, "ends"_a, "bits"_a);
    m.def("first_rows", &first_rows, "rows"_a, "documents"_a, "ends"_a, "most"_a);
    m.def("near_copies", &near_copies, "sketches"_a, "ends"_a, "most"_a, "alike"_a);
    m.def("unpermute", &unpermute, "images"_a, "size"_a, "before"_a, "numbers"_a, "after"_a);
    m.def("page_sums", [](const Array<uint8_t>& bytes) {
        constexpr size_t PAGE = SuffixIndex<uint16_t>::PAGE;
        if (bytes.size() % PAGE) throw std::invalid_argument("the bytes are not whole pages");
        std::vector<uint32_t> sums(bytes.size() / PAGE);
        {
            nb::gil_scoped_release release;
            for (size_t page = 0; page < sums.size(); ++page) sums[page] = crc32(bytes.data() + page * PAGE, PAGE);
        }
        return to_numpy(std::move(sums));
    }, "bytes"_a);
    bind_index<uint16_t>(m, "SuffixIndex16");
    bind_index<int32_t>(m, "SuffixIndex32");
}

}  // namespace bluejay
