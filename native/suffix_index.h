// Searches in a suffix array whose entries are packed bits in a mapped file, over tokens in another mapped file.
//
// A suffix ends where its document ends; one that is the beginning of another comes before it. All searches of a call advance
// together, so that the pages that they will touch can be fetched together: from memory, or from a disk that answers many
// requests at once.

#pragma once
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

namespace bluejay {

struct SuffixArrayParts {
    int64_t n_tokens;  // and suffixes
    const uint8_t* packed;  // n_tokens entries of `bits`, then at least 8 bytes, in whole pages
    int bits;
    const uint32_t* starts;  // of the documents, and the end of the last one: (n_documents + 1)
    int64_t n_documents;
    const uint64_t* samples;  // the key of every `every`-th suffix
    int64_t n_samples, every;
    int key_tokens, key_bits;  // a key holds this many tokens, plus one each, of so many bits; 0 after the document's end
    const uint32_t* sums;      // CRC-32 of each page of `packed`: (n_pages)
    int64_t n_pages;
};

/// One search for the place of `query` among the suffixes.
struct SuffixSearch {
    const int32_t* query;
    int32_t length;
    bool after;  // the place after the suffixes that begin with `query`, not before them
    int64_t low, high;
};

uint32_t crc32(const uint8_t* bytes, size_t count);

template <class Token>
class SuffixIndex {
   public:
    static constexpr int64_t PAGE = 4096;

    SuffixIndex(const SuffixArrayParts& parts, const Token* tokens);

    /// Raises found[i] to the length of the longest beginning of query[i ..] that occurs, for each i. Where a match ends
    /// does not go back as i grows. So what lies between two places is known where both end alike, and does not matter where
    /// the end of the right one is no further than what is found at the left one: the rest is divided.
    void longest(const int32_t* query, int32_t length, int32_t* found) const;

    /// Runs the searches; the place of each is then in `low`.
    void run(std::vector<SuffixSearch>& searches) const;

    /// The position of the suffix at a rank. Throws std::invalid_argument where the index is damaged.
    int64_t position(int64_t rank) const;

    int64_t document(int64_t position) const;

    /// The tokens that follow the first `length` tokens of the suffixes low .. high - 1, with their counts; -1 for the end.
    void next(int64_t low, int64_t high, int32_t length, std::vector<int32_t>& tokens, std::vector<int64_t>& counts) const;

    /// A sketch of the `context` tokens on each side of a match, within its document: of the hashes of every SHINGLE tokens the
    /// least in each of SKETCH bins, by their uppermost bits, and ~0 in an empty bin (one permutation hashing, Li, Owen & Zhang
    /// 2012).
    static constexpr int SKETCH = 64, SHINGLE = 5;
    void sketch(int64_t position, int64_t length, int64_t context, uint64_t* bins) const;

    const SuffixArrayParts& parts() const { return parts_; }

   private:
    void longest_at(const int32_t* query, int32_t length, const std::vector<int32_t>& places, int32_t* ends) const;
    /// How many tokens from `position` on, within the document, equal the beginning of `query`, and whether the document ends
    /// with them.
    struct Common {
        int32_t equal;
        bool ends;
    };
    Common common(int64_t position, const int32_t* query, int32_t length) const;
    bool before(int64_t position, const SuffixSearch& search) const;
    uint64_t key(const int32_t* query, int32_t length, bool after) const;
    void narrow(SuffixSearch& search) const;
    void check(int64_t page) const;
    const uint8_t* entry(int64_t rank) const { return parts_.packed + (uint64_t(rank) * parts_.bits >> 3); }

    SuffixArrayParts parts_;
    const Token* tokens_;
    std::vector<uint32_t> block_document_;  // the document of the first token of every block
    std::unique_ptr<std::atomic<bool>[]> checked_;
    mutable std::atomic<int> calm_{0};  // steps of searches since one had to wait for the disk
};

}  // namespace bluejay
