// Causal attention of a training step, forward and backward (FlashAttention, Dao et al. 2022). A tile of queries computes
// the scores of all its keys at once, because they fit a cache near the processor. Included for AVX-512 and for AMX, after
// the `product` of each and its constants: TILE_QUERIES and TILE_DIMENSIONS, the rows that a product takes at a time, and
// BACKWARD_QUERIES, the queries that are summed over before d_k and d_v are updated.
//
// Every product multiplies rows of x, pair by pair, with blocks of 16 columns of w, stored as pairs, and sums in float32:
//   scores   = q k^T         x = q        w = keys in blocks of 16, pairs of dimensions
//   out      = p v           x = p        w = values, pairs of tokens
//   d_p      = d_out v^T     x = d_out    w = values in blocks of 16, pairs of dimensions
//   d_q      = d_s k         x = d_s      w = keys, pairs of tokens
//   d_v^T    = d_out^T p     x = d_out^T  w = p, pairs of queries
//   d_k^T    = q^T d_s       x = q^T      w = d_s, pairs of queries

constexpr float LOG2_E = 1.44269504088896341f;

/// Transposes a matrix (16, 16) of 32-bit words.
inline void transpose(const uint32_t* from, ptrdiff_t from_row, uint32_t* to, ptrdiff_t to_row) {
    __m512i a[16], b[16];
    for (int i = 0; i < 16; ++i) a[i] = _mm512_loadu_si512(from + i * from_row);
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_epi32(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_epi32(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            a[i + 2 * j] = _mm512_unpacklo_epi64(b[i + j], b[i + j + 2]);
            a[i + 2 * j + 1] = _mm512_unpackhi_epi64(b[i + j], b[i + j + 2]);
        }
    for (int i = 0; i < 4; ++i)
        for (int j = 0; j < 2; ++j) {
            b[8 * j + i] = _mm512_shuffle_i32x4(a[8 * j + i], a[8 * j + i + 4], 0x88);
            b[8 * j + i + 4] = _mm512_shuffle_i32x4(a[8 * j + i], a[8 * j + i + 4], 0xDD);
        }
    for (int i = 0; i < 8; ++i) {
        _mm512_storeu_si512(to + i * to_row, _mm512_shuffle_i32x4(b[i], b[i + 8], 0x88));
        _mm512_storeu_si512(to + (i + 8) * to_row, _mm512_shuffle_i32x4(b[i], b[i + 8], 0xDD));
    }
}
/// Memory as 32-bit words, each a pair of bfloat16.
inline const uint32_t* words(const void* from) { return static_cast<const uint32_t*>(from); }
inline uint32_t* words(void* to) { return static_cast<uint32_t*>(to); }

/// Stores two rows as pairs: to[2 i] = even[i], to[2 i + 1] = odd[i].
inline void store_pairs(Bf16* to, F even, F odd) {
    const __m512i low = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(even.part[0])));
    const __m512i high = _mm512_cvtepu16_epi32(reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(odd.part[0])));
    _mm512_storeu_si512(to, _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
}

/// Rotates the pairs of a row by their angles, or back if `sign` is -1.
inline void rotate(const Attention& a, int t, float sign, float* x) {
    const float *cos = a.cos + size_t(t) * a.R, *sin = a.sin + size_t(t) * a.R;
    const int next = a.rotate_half ? 1 : 2, other = a.rotate_half ? a.R : 1;
    for (int i = 0; i < a.R; ++i) {
        const float first = x[i * next], second = x[i * next + other], s = sign * sin[i];
        x[i * next] = first * cos[i] - second * s;
        x[i * next + other] = second * cos[i] + first * s;
    }
}

/// Copies a head's rows to (padded, H), rotated if `rotated`; rows after T are zero.
inline void gather(const Attention& a, const Bf16* from, ptrdiff_t stride, bool rotated, int padded, Bf16* to) {
    alignas(64) float row[1024];
    for (int t = 0; t < padded; ++t, to += a.H) {
        if (t >= a.T) {
            __builtin_memset(to, 0, a.H * sizeof(Bf16));
        } else if (!rotated || !a.R) {
            __builtin_memcpy(to, from + t * stride, a.H * sizeof(Bf16));
        } else {
            for (int h = 0; h < a.H; h += 16) store(row + h, from_bf16(from + t * stride + h));
            rotate(a, t, 1, row);
            for (int h = 0; h < a.H; h += 16) to_bf16(to + h, load(row + h));
        }
    }
}

/// Converts (rows, H) to blocks of 16 rows, each stored as pairs of dimensions.
inline void block_rows(const Bf16* from, int rows, int H, Bf16* to) {
    for (int t = 0; t < rows; t += 16)
        for (int h = 0; h < H; h += 32) {  // an odd block of 16 dimensions fills half of the square
            alignas(64) uint32_t square[256] = {};
            const int wide = H - h < 32 ? 8 : 16;
            if (wide == 16) {
                transpose(words(from + t * H + h), H / 2, words(to + t * H + h * 16), 16);
                continue;
            }
            for (int i = 0; i < 16; ++i) __builtin_memcpy(square + 16 * i, from + (t + i) * H + h, 32);
            alignas(64) uint32_t transposed[256];
            transpose(square, 16, transposed, 16);
            __builtin_memcpy(to + t * H + h * 16, transposed, 8 * 64);
        }
}
/// Converts (rows, H) to pairs of rows, (rows / 2, H, 2).
inline void pair_rows(const Bf16* from, int rows, int H, Bf16* to) {
    for (int t = 0; t < rows; t += 2)
        for (int h = 0; h < H; h += 16)
            store_pairs(to + t * H + 2 * h, from_bf16(from + t * H + h), from_bf16(from + (t + 1) * H + h));
}
/// Converts pairs of rows, (rows / 2, H, 2), to (H, rows); `rows` must be a multiple of 32.
inline void transpose_pairs(const Bf16* from, int rows, int H, Bf16* to) {
    for (int t = 0; t < rows; t += 32)
        for (int h = 0; h < H; h += 16)
            transpose(words(from + t * H + 2 * h), H, words(to + h * rows + t), rows / 2);
}

/// How a call divides its working memory, which begins at `base`: the inputs of one key/value head and of one of its query
/// heads, in the forms in which products read them, and what a tile computes. `bytes` is the size of all.
struct Space {
    int keys, queries;  // T, rounded up to multiples of 32 and of 96
    Bf16 *rows, *k_blocks, *v_blocks, *k_pairs, *v_pairs, *q, *q_transposed, *d_out, *d_out_transposed, *p, *p_pairs, *ds_pairs;
    float *scores, *dp, *dk, *dv;
    size_t bytes;

    Space(const Attention& a, std::byte* base) : keys(round_up(a.T, 32)), queries(round_up(a.T, 96)), bytes(0) {
        const auto take = [&]<class T>(T*& at, size_t count) {
            at = reinterpret_cast<T*>(base + bytes);
            bytes += (count * sizeof(T) + 63) / 64 * 64;
        };
        const size_t by_key = size_t(keys) * a.H, by_query = size_t(queries) * a.H;
        take(rows, by_query);
        for (Bf16** each : {&k_blocks, &v_blocks, &k_pairs, &v_pairs}) take(*each, by_key);
        for (Bf16** each : {&q, &q_transposed, &d_out, &d_out_transposed}) take(*each, by_query);
        take(p, size_t(TILE_QUERIES) * keys);
        take(p_pairs, size_t(BACKWARD_QUERIES) * keys), take(ds_pairs, size_t(BACKWARD_QUERIES) * keys);
        take(scores, size_t(TILE_QUERIES) * keys), take(dp, size_t(TILE_QUERIES) * keys);
        take(dk, by_key), take(dv, by_key);
    }
};
size_t attention_space(const Attention& a) { return Space(a, nullptr).bytes; }

/// The blocks of 16 keys that queries from `query` to `end_query` - 1 attend to.
struct KeyBlocks {
    int begin, end;
    KeyBlocks(const Attention& a, int query, int end_query) : begin(query), end(0) {
        const int last = end_query < a.T ? end_query : a.T;
        if (!a.first_visible) begin = 0;
        for (int t = query; a.first_visible && t < last; ++t) begin = a.first_visible[t] < begin ? a.first_visible[t] : begin;
        begin /= 16;
        end = (last + 15) / 16;
    }
    int blocks() const { return end - begin; }
};

/// The positions of the 16 tokens of a block.
inline F positions(int block) {
    alignas(64) static const float lane[16] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    return load(lane) + set(float(16 * block));
}
/// `x` for the keys of a block that query t attends to, `hidden` for others.
inline F where_visible(const Attention& a, int t, int block, F x, float hidden) {
    const int first = a.first_visible ? a.first_visible[t] : 0;
    if (16 * block >= first && 16 * block + 15 <= t) return x;
    const F key = positions(block);
    x = where_negative(set(float(t)) - key, set(hidden), x);
    return where_negative(key - set(float(first)), set(hidden), x);
}

/// 2^a for a <= 0 with a relative error of 1 / 20,000, which is less than bfloat16's; 0 below -100.
inline F exp2_coarse(F a) {
    const __m512 x = a.part[0];
    const __m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    const __m512 f = _mm512_sub_ps(x, n);
    __m512 y = _mm512_set1_ps(9.618129107e-3f);
    for (float c : {5.550410866e-2f, 2.402265070e-1f, 6.931471806e-1f, 1.0f}) y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(c));
    return {{reinterpret_cast<FloatRegister>(_mm512_scalef_ps(y, n))}};
}

void attend_training(const Attention& a, const AttentionInputs& in, int kv_head, Bf16* out, float* lse, std::byte* base) {
    const Space space(a, base);
    const int H = a.H, group = a.N / a.K;
    gather(a, in.k + kv_head * H, ptrdiff_t(a.K) * H, true, space.keys, space.rows);
    block_rows(space.rows, space.keys, H, space.k_blocks);
    gather(a, in.v + kv_head * H, ptrdiff_t(a.K) * H, false, space.keys, space.rows);
    pair_rows(space.rows, space.keys, H, space.v_pairs);
    const F to_log2 = set(a.scale * LOG2_E);
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        gather(a, in.q + head * H, ptrdiff_t(a.N) * H, true, space.queries, space.q);
        for (int query = 0; query < a.T; query += TILE_QUERIES) {
            const KeyBlocks range(a, query, query + TILE_QUERIES);
            const int columns = 16 * range.blocks();
            product<TILE_QUERIES>(
                space.q + query * H, H, {space.k_blocks + range.begin * 16 * H, 32, 16 * H}, H / 2, range.blocks(),
                [&](int m, int block, F sum) { store(space.scores + m * columns + 16 * block, sum); });
            float inverse[TILE_QUERIES] = {};
            for (int m = 0; m < TILE_QUERIES; ++m) {
                Bf16* p = space.p + m * columns;
                const float* scores = space.scores + m * columns;
                const int t = query + m;
                if (t >= a.T) {
                    __builtin_memset(p, 0, columns * sizeof(Bf16));
                    continue;
                }
                F maxima = set(-1e30f), total = set(0.0f);
                for (int b = 0; b < range.blocks(); ++b)
                    maxima = max(maxima, where_visible(a, t, range.begin + b, load(scores + 16 * b) * to_log2, -1e30f));
                const F maximum = set(largest(maxima));
                for (int b = 0; b < range.blocks(); ++b) {
                    const F power = exp2_coarse(min(load(scores + 16 * b) * to_log2 - maximum, set(0.0f)));
                    const F weight = where_visible(a, t, range.begin + b, power, 0.0f);
                    total = total + weight;
                    to_bf16(p + 16 * b, weight);
                }
                const float all = sum(total);
                inverse[m] = 1 / all;
                lse[size_t(head) * a.T + t] = largest(maximum) / LOG2_E + __builtin_logf(all);
            }
            product<TILE_QUERIES>(space.p, columns, {space.v_pairs + range.begin * 16 * H, 2 * H, 32}, columns / 2,
                                               H / 16, [&](int m, int block, F sum) {
                                                   if (query + m >= a.T) return;
                                                   Bf16* row = out + (size_t(query + m) * a.N + head) * H;
                                                   to_bf16(row + 16 * block, sum * set(inverse[m]));
                                               });
        }
    }
}

/// The dot product of two rows of width H.
inline float row_dot(const Bf16* x, const Bf16* y, int H) {
    F total = set(0.0f);
    for (int h = 0; h < H; h += 16) total = total + from_bf16(x + h) * from_bf16(y + h);
    return sum(total);
}

/// The backward pass of a tile of queries: their probabilities and the gradients of their scores, stored as pairs of queries
/// for d_v and d_k, and the queries' own gradient. Columns count from the first key of `range`, which all tiles share.
inline void backward_tile(const Attention& a, const AttentionGradients& g, const Space& space, const KeyBlocks& range, int head,
                          int query, int place) {
    const int H = a.H, columns = 16 * range.blocks();
    const int blocks = KeyBlocks(a, query, query + TILE_QUERIES).end - range.begin;  // none of the tile's queries attends to later ones
    Bf16 *p_pairs = space.p_pairs + ptrdiff_t(place) * columns, *ds_pairs = space.ds_pairs + ptrdiff_t(place) * columns;
    if (query >= a.T) {
        __builtin_memset(p_pairs, 0, TILE_QUERIES * columns * sizeof(Bf16));
        __builtin_memset(ds_pairs, 0, TILE_QUERIES * columns * sizeof(Bf16));
        return;
    }
    const ptrdiff_t at = ptrdiff_t(range.begin) * 16 * H;
    product<TILE_QUERIES>(space.q + query * H, H, {space.k_blocks + at, 32, 16 * H}, H / 2, blocks,
                                       [&](int m, int block, F sum) { store(space.scores + m * columns + 16 * block, sum); });
    product<TILE_QUERIES>(space.d_out + query * H, H, {space.v_blocks + at, 32, 16 * H}, H / 2, blocks,
                                       [&](int m, int block, F sum) { store(space.dp + m * columns + 16 * block, sum); });
    const F to_log2 = set(a.scale * LOG2_E), scale = set(a.scale);
    for (int m = 0; m < TILE_QUERIES; m += 2, p_pairs += 2 * columns, ds_pairs += 2 * columns) {
        F shift[2], d[2];
        for (int i = 0; i < 2; ++i) {
            const size_t t = query + m + i < a.T ? query + m + i : a.T - 1;
            shift[i] = set(g.lse[head * size_t(a.T) + t] * LOG2_E);
            d[i] = set(row_dot(g.out + (t * a.N + head) * H, g.d_out + (t * a.N + head) * H, H));
        }
        for (int b = 0; b < blocks; ++b) {
            F p[2], ds[2];
            for (int i = 0; i < 2; ++i) {
                const int from = (m + i) * columns + 16 * b;
                p[i] = exp2_coarse(min(load(space.scores + from) * to_log2 - shift[i], set(0.0f)));
                p[i] = query + m + i < a.T ? where_visible(a, query + m + i, range.begin + b, p[i], 0.0f) : set(0.0f);
                ds[i] = p[i] * (load(space.dp + from) - d[i]) * scale;
                to_bf16(space.p + from, ds[i]);
            }
            store_pairs(p_pairs + 32 * b, p[0], p[1]);
            store_pairs(ds_pairs + 32 * b, ds[0], ds[1]);
        }
        const size_t rest = 2 * (columns - 16 * blocks) * sizeof(Bf16);
        __builtin_memset(p_pairs + 32 * blocks, 0, rest);
        __builtin_memset(ds_pairs + 32 * blocks, 0, rest);
    }
    alignas(64) float dq[TILE_QUERIES][1024];
    product<TILE_QUERIES>(space.p, columns, {space.k_pairs + at, 2 * H, 32}, 8 * blocks, H / 16,
                                       [&](int m, int block, F sum) { store(dq[m] + 16 * block, sum); });
    for (int m = 0; m < TILE_QUERIES && query + m < a.T; ++m) {
        if (a.R) rotate(a, query + m, -1, dq[m]);
        for (int h = 0; h < H; h += 16) to_bf16(g.dq + (size_t(query + m) * a.N + head) * H + h, load(dq[m] + h));
    }
}

/// Converts (H, T) in float32 to a head's rows, rotated back if `rotated`.
inline void scatter(const Attention& a, const Space& space, const float* from, bool rotated, int kv_head, Bf16* to) {
    alignas(64) float rows[16][1024];
    for (int t = 0; t < a.T; t += 16) {
        for (int h = 0; h < a.H; h += 16)
            transpose(words(from + ptrdiff_t(h) * space.keys + t), space.keys, words(rows[0] + h), 1024);
        for (int i = 0; i < 16 && t + i < a.T; ++i) {
            if (rotated && a.R) rotate(a, t + i, -1, rows[i]);
            Bf16* row = to + (size_t(t + i) * a.K + kv_head) * a.H;
            for (int h = 0; h < a.H; h += 16) to_bf16(row + h, load(rows[i] + h));
        }
    }
}

void attend_backward(const Attention& a, const AttentionInputs& in, const AttentionGradients& g, int kv_head, std::byte* base) {
    const Space space(a, base);
    const int H = a.H, group = a.N / a.K;
    gather(a, in.k + kv_head * H, ptrdiff_t(a.K) * H, true, space.keys, space.rows);
    block_rows(space.rows, space.keys, H, space.k_blocks);
    pair_rows(space.rows, space.keys, H, space.k_pairs);
    gather(a, in.v + kv_head * H, ptrdiff_t(a.K) * H, false, space.keys, space.rows);
    block_rows(space.rows, space.keys, H, space.v_blocks);
    __builtin_memset(space.dk, 0, size_t(space.keys) * H * sizeof(float));
    __builtin_memset(space.dv, 0, size_t(space.keys) * H * sizeof(float));
    for (int head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        gather(a, in.q + head * H, ptrdiff_t(a.N) * H, true, space.queries, space.q);
        pair_rows(space.q, space.queries, H, space.rows);
        transpose_pairs(space.rows, space.queries, H, space.q_transposed);
        gather(a, g.d_out + head * H, ptrdiff_t(a.N) * H, false, space.queries, space.d_out);
        pair_rows(space.d_out, space.queries, H, space.rows);
        transpose_pairs(space.rows, space.queries, H, space.d_out_transposed);
        for (int query = 0; query < a.T; query += BACKWARD_QUERIES) {
            const KeyBlocks range(a, query, query + BACKWARD_QUERIES);
            for (int place = 0; place < BACKWARD_QUERIES; place += TILE_QUERIES)
                backward_tile(a, g, space, range, head, query + place, place);
            const auto add = [&](const Bf16* x, const Bf16* w, float* to) {
                for (int h = 0; h < H; h += TILE_DIMENSIONS)
                    product<TILE_DIMENSIONS>(x + ptrdiff_t(h) * space.queries + query, space.queries,
                                                {w, 32 * range.blocks(), 32}, BACKWARD_QUERIES / 2, range.blocks(),
                                                [&](int m, int block, F sum) {
                                                    float* at = to + ptrdiff_t(h + m) * space.keys + 16 * (range.begin + block);
                                                    store(at, load(at) + sum);
                                                });
            };
            add(space.d_out_transposed, space.p_pairs, space.dv);
            add(space.q_transposed, space.ds_pairs, space.dk);
        }
    }
    scatter(a, space, space.dk, true, kv_head, g.dk);
    scatter(a, space, space.dv, false, kv_head, g.dv);
}
