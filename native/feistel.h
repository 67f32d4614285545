// The inverse of `bluejay.train.data.order.permute`: where in a shuffled range a number stands.

#pragma once
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace bluejay {

/// BLAKE2b with a digest of eight bytes (RFC 7693), as a little-endian number.
inline uint64_t blake2b_64(std::string_view data) {
    constexpr int BLOCK = 128, ROUNDS = 12;
    static constexpr uint64_t IV[8] = {0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
                                       0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179};
    static constexpr uint8_t SIGMA[10][16] = {
        {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3},
        {11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4}, {7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8},
        {9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13}, {2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9},
        {12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11}, {13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10},
        {6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5}, {10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0}};
    const auto turned = [](uint64_t x, int by) { return x >> by | x << (64 - by); };
    std::array<uint64_t, 8> state;
    std::copy(IV, IV + 8, state.begin());
    state[0] ^= 0x01010000 | sizeof(uint64_t);
    size_t done = 0;
    bool last;
    do {
        const size_t taken = std::min<size_t>(BLOCK, data.size() - done);
        uint64_t message[16] = {}, v[16];
        std::memcpy(message, data.data() + done, taken);
        done += taken;
        last = done == data.size();
        std::copy(state.begin(), state.end(), v);
        std::copy(IV, IV + 8, v + 8);
        v[12] ^= done;
        if (last) v[14] = ~v[14];
        for (int round = 0; round < ROUNDS; ++round) {
            const uint8_t* order = SIGMA[round % 10];
            const auto mix = [&](uint64_t& a, uint64_t& b, uint64_t& c, uint64_t& d) {
                a += b + message[*order++], d = turned(d ^ a, 32), c += d, b = turned(b ^ c, 24);
                a += b + message[*order++], d = turned(d ^ a, 16), c += d, b = turned(b ^ c, 63);
            };
            mix(v[0], v[4], v[8], v[12]), mix(v[1], v[5], v[9], v[13]), mix(v[2], v[6], v[10], v[14]), mix(v[3], v[7], v[11], v[15]);
            mix(v[0], v[5], v[10], v[15]), mix(v[1], v[6], v[11], v[12]), mix(v[2], v[7], v[8], v[13]), mix(v[3], v[4], v[9], v[14]);
        }
        for (int i = 0; i < 8; ++i) state[i] ^= v[i] ^ v[i + 8];
    } while (!last);
    return state[0];
}

/// The Feistel networks of one range: a network for each key, whose round functions are hashed where they are needed.
class Feistel {
   public:
    static constexpr int ROUNDS = 4;

    explicit Feistel(int64_t size) : size_(size) {
        if (size < 1) throw std::invalid_argument("a range holds one number at least");
        int bits = 0;
        while ((size - 1) >> bits) ++bits;
        half_ = std::max(1, (bits + 1) / 2);
    }

    void use(std::string key) {
        if (key == key_) return;
        key_ = std::move(key);
        for (int round = 0; round < ROUNDS; ++round) texts_[round] = key_ + "/" + std::to_string(round) + "/";
        known_.assign(size_t(ROUNDS) << half_, -1);
    }

    /// The index whose image is `image`.
    int64_t inverse(int64_t image) {
        if (image < 0 || image >= size_) throw std::invalid_argument("a number is outside its range");
        const int64_t mask = (int64_t(1) << half_) - 1;
        do {
            int64_t left = image >> half_, right = image & mask;
            for (int round = ROUNDS - 1; round >= 0; --round) {
                const int64_t before = right ^ hashed(round, left);
                right = left;
                left = before;
            }
            image = left << half_ | right;
        } while (image >= size_);
        return image;
    }

   private:
    int64_t hashed(int round, int64_t value) {
        int64_t& found = known_[size_t(round) << half_ | size_t(value)];
        if (found < 0) {
            std::string& text = texts_[round];
            const size_t size = text.size();
            text += std::to_string(value);
            found = int64_t(blake2b_64(text) & ((uint64_t(1) << half_) - 1));
            text.resize(size);
        }
        return found;
    }

    int64_t size_;
    int half_;
    std::string key_;
    std::array<std::string, ROUNDS> texts_;  // what is hashed before the number
    std::vector<int64_t> known_;
};

}  // namespace bluejay
