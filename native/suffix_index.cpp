#include "suffix_index.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <stdexcept>

namespace bluejay {

namespace {

constexpr int BLOCK_SHIFT = 8;  // tokens between two entries of the table of documents, as a power of two
constexpr int PROBES = 4;      // pages whose presence in memory decides whether to ask for pages ahead
constexpr int CALM = 64, SELDOM = 16;  // after so many steps in memory, only every 16th step asks: it takes as long as a step

std::array<std::array<uint32_t, 256>, 8> crc_tables() {
    std::array<std::array<uint32_t, 256>, 8> tables{};
    for (uint32_t i = 0; i < 256; ++i) {
        uint32_t value = i;
        for (int bit = 0; bit < 8; ++bit) value = value >> 1 ^ (value & 1 ? 0xEDB88320u : 0);
        tables[0][i] = value;
    }
    for (uint32_t i = 0; i < 256; ++i)
        for (int t = 1; t < 8; ++t) tables[t][i] = tables[t - 1][i] >> 8 ^ tables[0][tables[t - 1][i] & 255];
    return tables;
}

uintptr_t page_of(const void* address) {
    static const uintptr_t mask = ~uintptr_t(sysconf(_SC_PAGESIZE) - 1);
    return reinterpret_cast<uintptr_t>(address) & mask;
}

bool in_memory(const void* address) {
#ifdef __linux__
    unsigned char there = 1;
    return mincore(reinterpret_cast<void*>(page_of(address)), 1, &there) != 0 || there & 1;
#else
    char there = 1;
    return mincore(reinterpret_cast<caddr_t>(page_of(address)), 1, &there) != 0 || there & 1;
#endif
}

/// Has the page of an address read from disk, without waiting for it.
void read_ahead(const void* address) { madvise(reinterpret_cast<void*>(page_of(address)), 1, MADV_WILLNEED); }

}  // namespace

/// CRC-32 as in zlib, eight bytes at a time (Kounavis & Berry 2005).
uint32_t crc32(const uint8_t* bytes, size_t count) {
    static const auto tables = crc_tables();
    uint32_t crc = ~0u;
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        std::memcpy(&word, bytes, 8);
        word ^= crc;
        crc = 0;
        for (int t = 0; t < 8; ++t) crc ^= tables[7 - t][word >> 8 * t & 255];
    }
    for (; count; ++bytes, --count) crc = crc >> 8 ^ tables[0][(crc ^ *bytes) & 255];
    return ~crc;
}

template <class Token>
SuffixIndex<Token>::SuffixIndex(const SuffixArrayParts& parts, const Token* tokens) : parts_(parts), tokens_(tokens) {
    checked_.reset(new std::atomic<bool>[parts.n_pages]());
    block_document_.resize((parts.n_tokens >> BLOCK_SHIFT) + 2);
    int64_t document = 0;
    for (size_t block = 0; block < block_document_.size(); ++block) {
        while (document + 1 < parts.n_documents && parts.starts[document + 1] <= block << BLOCK_SHIFT) ++document;
        block_document_[block] = uint32_t(document);
    }
}

template <class Token>
void SuffixIndex<Token>::check(int64_t page) const {
    if (checked_[page].load(std::memory_order_relaxed)) return;
    if (crc32(parts_.packed + page * PAGE, PAGE) != parts_.sums[page])
        throw std::invalid_argument("it is damaged: a page does not have the checksum that it was written with");
    checked_[page].store(true, std::memory_order_relaxed);
}

template <class Token>
int64_t SuffixIndex<Token>::position(int64_t rank) const {
    const uint64_t bit = uint64_t(rank) * parts_.bits;
    const int64_t byte = bit >> 3;
    check(byte / PAGE);
    if (byte % PAGE > PAGE - 5) check((byte + 4) / PAGE);
    uint64_t word;
    std::memcpy(&word, parts_.packed + byte, 8);
    const int64_t found = word >> (bit & 7) & ((uint64_t(1) << parts_.bits) - 1);
    if (found >= parts_.n_tokens) throw std::invalid_argument("it is damaged: an entry points behind the last token");
    return found;
}

template <class Token>
int64_t SuffixIndex<Token>::document(int64_t position) const {
    const size_t block = position >> BLOCK_SHIFT;
    const uint32_t *first = parts_.starts + block_document_[block], *last = parts_.starts + block_document_[block + 1] + 1;
    return std::upper_bound(first, last, uint32_t(position)) - parts_.starts - 1;
}

template <class Token>
typename SuffixIndex<Token>::Common SuffixIndex<Token>::common(int64_t position, const int32_t* query, int32_t length) const {
    const int32_t most = int32_t(std::min<int64_t>(length, parts_.n_tokens - position));
    const Token* text = tokens_ + position;
    int32_t equal = 0;
    while (equal < most && int32_t(text[equal]) == query[equal]) ++equal;
    if (equal == 0) return {0, false};
    const int64_t left = parts_.starts[document(position) + 1] - position;
    return {int32_t(std::min<int64_t>(equal, left)), equal >= left};
}

/// Whether the suffix at `position` comes before the place that is searched.
template <class Token>
bool SuffixIndex<Token>::before(int64_t position, const SuffixSearch& search) const {
    const auto [equal, ends] = common(position, search.query, search.length);
    if (equal == search.length) return search.after;
    return ends || int32_t(tokens_[position + equal]) < search.query[equal];
}

template <class Token>
uint64_t SuffixIndex<Token>::key(const int32_t* query, int32_t length, bool after) const {
    const uint64_t largest = (uint64_t(1) << parts_.key_bits) - 1;
    uint64_t key = 0;
    bool beyond = false;  // a token above those of the corpus: everything after it is above, too
    for (int32_t i = 0; i < parts_.key_tokens; ++i) {
        uint64_t symbol = i < length ? uint64_t(uint32_t(query[i])) + 1 : after ? largest : 0;
        if (symbol > largest) beyond = true;
        key = key << parts_.key_bits | (beyond ? largest : symbol);
    }
    return key;
}

template <class Token>
void SuffixIndex<Token>::narrow(SuffixSearch& search) const {
    const uint64_t *first = parts_.samples, *last = first + parts_.n_samples;
    const uint64_t *low = std::lower_bound(first, last, key(search.query, search.length, false)), *high = low;
    const uint64_t largest = key(search.query, search.length, search.after);
    int64_t step = 1;  // few samples have the same key, so the last one is sought from the first one on
    for (; last - high >= step && high[step - 1] <= largest; step *= 2) high += step;
    high = std::upper_bound(high, high + std::min<int64_t>(step, last - high), largest);
    search.low = low == first ? 0 : (low - first - 1) * parts_.every + 1;
    search.high = high == last ? parts_.n_tokens : (high - first) * parts_.every;
}

template <class Token>
void SuffixIndex<Token>::run(std::vector<SuffixSearch>& searches) const {
    std::vector<SuffixSearch*> active;
    for (SuffixSearch& search : searches) {
        narrow(search);
        if (search.low < search.high) active.push_back(&search);
    }
    const auto middle = [](const SuffixSearch& search) { return search.low + (search.high - search.low) / 2; };
    // Whether any of a few of the things that the searches touch next is not in memory.
    const auto missing = [&](const auto& address) {
        const int calm = calm_.load(std::memory_order_relaxed);
        calm_.store(calm < CALM + SELDOM ? calm + 1 : CALM, std::memory_order_relaxed);
        if (calm > CALM) return false;
        for (int probe = 0; probe < PROBES && probe < int(active.size()); ++probe)
            if (!in_memory(address(active.size() * probe / PROBES))) {
                calm_.store(0, std::memory_order_relaxed);
                return true;
            }
        return false;
    };
    std::vector<int64_t> positions;
    while (!active.empty()) {
        const auto entry_of = [&](size_t i) { return entry(middle(*active[i])); };
        const bool cold = missing(entry_of);
        for (size_t i = 0; i < active.size(); ++i) {
            __builtin_prefetch(entry_of(i));
            if (cold) read_ahead(entry_of(i)), read_ahead(entry_of(i) + 4);
        }
        positions.resize(active.size());
        for (size_t i = 0; i < active.size(); ++i) {
            positions[i] = position(middle(*active[i]));
            __builtin_prefetch(tokens_ + positions[i]);
        }
        if (missing([&](size_t i) { return tokens_ + positions[i]; }))
            for (const int64_t at : positions) read_ahead(tokens_ + at);
        size_t kept = 0;
        for (size_t i = 0; i < active.size(); ++i) {
            SuffixSearch& search = *active[i];
            if (before(positions[i], search))
                search.low = middle(search) + 1;
            else
                search.high = middle(search);
            if (search.low < search.high) active[kept++] = &search;
        }
        active.resize(kept);
    }
}

/// Where the longest match ends that begins at each of the places of a query.
template <class Token>
void SuffixIndex<Token>::longest_at(const int32_t* query, int32_t length, const std::vector<int32_t>& places,
                                    int32_t* ends) const {
    std::vector<SuffixSearch> searches;
    for (const int32_t i : places) searches.push_back({query + i, length - i, false, 0, 0});
    run(searches);
    std::vector<int64_t> positions(2 * places.size(), -1);  // of the neighbours, most of which the search has just compared
    for (size_t n = 0; n < places.size(); ++n)
        for (int side = 0; side < 2; ++side) {
            const int64_t rank = searches[n].low - side;
            if (rank < 0 || rank >= parts_.n_tokens) continue;
            positions[2 * n + side] = position(rank);
            __builtin_prefetch(tokens_ + positions[2 * n + side]);
        }
    for (size_t n = 0; n < places.size(); ++n) {
        const int32_t i = places[n];
        ends[i] = i;
        for (int side = 0; side < 2; ++side)
            if (const int64_t at = positions[2 * n + side]; at >= 0)
                ends[i] = std::max(ends[i], i + common(at, query + i, length - i).equal);
    }
}

template <class Token>
void SuffixIndex<Token>::longest(const int32_t* query, int32_t length, int32_t* found) const {
    if (length == 0) return;
    std::vector<int32_t> ends(length), places{0};
    std::vector<std::pair<int32_t, int32_t>> open{{0, length - 1}};
    if (length > 1) places.push_back(length - 1);
    longest_at(query, length, places, ends.data());
    while (!open.empty()) {
        places.clear();
        std::vector<std::pair<int32_t, int32_t>> divided;
        for (const auto& [left, right] : open) {
            if (right - left < 2) continue;
            if (ends[left] == ends[right]) {
                std::fill(ends.begin() + left + 1, ends.begin() + right, ends[left]);
            } else if (ends[right] > std::max(ends[left], left + found[left])) {
                const int32_t middle = left + (right - left) / 2;
                places.push_back(middle);
                divided.push_back({left, middle});
                divided.push_back({middle, right});
            }
        }
        longest_at(query, length, places, ends.data());
        open.swap(divided);
    }
    for (int32_t i = 0; i < length; ++i) found[i] = std::max(found[i], ends[i] - i);
}

template <class Token>
void SuffixIndex<Token>::next(int64_t low, int64_t high, int32_t length, std::vector<int32_t>& tokens,
                              std::vector<int64_t>& counts) const {
    const auto token_at = [&](int64_t rank) {
        const int64_t start = position(rank), at = start + length;
        return at >= int64_t(parts_.starts[document(start) + 1]) ? -1 : int32_t(tokens_[at]);
    };
    while (low < high) {
        const int32_t token = token_at(low);
        int64_t same = low, other = low + 1;  // gallop, because most tokens follow rarely
        for (int64_t step = 1; other < high && token_at(other) == token; step *= 2) same = other, other = other + step;
        other = std::min(other, high);
        while (other - same > 1) {
            const int64_t middle = same + (other - same) / 2;
            (token_at(middle) == token ? same : other) = middle;
        }
        tokens.push_back(token);
        counts.push_back(other - low);
        low = other;
    }
}

template <class Token>
void SuffixIndex<Token>::sketch(int64_t position, int64_t length, int64_t context, uint64_t* bins) const {
    const int64_t own = document(position), begin = parts_.starts[own], end = parts_.starts[own + 1];
    std::fill(bins, bins + SKETCH, ~uint64_t(0));
    const auto add = [&](int64_t first, int64_t last) {
        const int64_t shingle = std::min<int64_t>(SHINGLE, last - first);
        for (int64_t at = first; shingle > 0 && at + shingle <= last; ++at) {
            uint64_t hash = 0;
            for (int64_t i = 0; i < shingle; ++i) hash = (hash ^ uint64_t(tokens_[at + i])) * 0x9E3779B97F4A7C15u + (hash >> 29);
            hash ^= hash >> 32;
            hash *= 0xD6E8FEB86659FD93u;
            hash ^= hash >> 32;
            uint64_t& bin = bins[hash >> 58];
            bin = std::min(bin, hash);
        }
    };
    add(std::max(begin, position - context), position);
    add(position + length, std::min(end, position + length + context));
}

template class SuffixIndex<uint16_t>;
template class SuffixIndex<int32_t>;

}  // namespace bluejay
