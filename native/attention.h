// Pages of the cache: storing keys and values, and attention over them. Included once per instruction set.

template <class T>
inline F load_as(const uint8_t* base, size_t at);
template <>
inline F load_as<float>(const uint8_t* base, size_t at) {
    return load(reinterpret_cast<const float*>(base) + at);
}
template <>
inline F load_as<uint16_t>(const uint8_t* base, size_t at) {
    return from_bf16(reinterpret_cast<const uint16_t*>(base) + at);
}
template <>
inline F load_as<int8_t>(const uint8_t* base, size_t at) {
    return from_int8(reinterpret_cast<const int8_t*>(base) + at);
}

/// Converts up to 16 floats to the cache's type; int8 are multiples of 1 / `inverse`.
template <class T>
inline void convert(const float* from, int count, float inverse, T* to) {
    alignas(64) float padded[16] = {};
    for (int i = 0; i < count; ++i) padded[i] = from[i];
    if constexpr (sizeof(T) == 4)
        store(to, load(padded));
    else if constexpr (sizeof(T) == 2)
        to_bf16(to, load(padded));
    else
        to_int8(to, round(load(padded) * set(inverse)));
}

template <class T>
inline void append_as(const float* key, const float* value, int d_head, int slot, const Page& page) {
    float key_inverse = 1, value_inverse = 1;
    if constexpr (sizeof(T) == 1) {
        float key_max = 0, value_max = 0;
        float key_poison = 0, value_poison = 0;  // become NaN with any number that is not finite
        for (int i = 0; i < d_head; ++i) {
            const float k = __builtin_fabsf(key[i]), v = __builtin_fabsf(value[i]);
            key_max = k > key_max ? k : key_max;
            value_max = v > value_max ? v : value_max;
            key_poison += k * 0.0f, value_poison += v * 0.0f;
        }
        page.key_scales[slot] = key_max / 127 + key_poison;
        page.value_scales[slot] = value_max / 127 + value_poison;
        key_inverse = key_max > 0 ? 127 / key_max : 0;
        value_inverse = value_max > 0 ? 127 / value_max : 0;
    }
    T* keys = reinterpret_cast<T*>(page.keys);
    T* values = reinterpret_cast<T*>(page.values) + slot * round_up(d_head, 16);
    for (int i = 0; i < d_head; i += 16) {
        const int count = d_head - i < 16 ? d_head - i : 16;
        T column[16];
        convert<T>(key + i, count, key_inverse, column);
        for (int j = 0; j < count; ++j) keys[(i + j) * PAGE + slot] = column[j];
        convert<T>(value + i, count, value_inverse, values + i);
    }
}

void append(const float* key, const float* value, int d_head, Format cache, int slot, const Page& page) {
    switch (cache) {
        case Format::f32: append_as<float>(key, value, d_head, slot, page); break;
        case Format::bf16: append_as<uint16_t>(key, value, d_head, slot, page); break;
        default: append_as<int8_t>(key, value, d_head, slot, page);
    }
}

/// Scores of M queries for the 16 tokens of a page. Each has four sums, because additions to a single one would wait for
/// each other.
template <class T, int M>
inline void page_scores(const Queries& queries, int row, const Page& page, int position) {
    F part[M][4];
    for (int m = 0; m < M; ++m)
        for (int i = 0; i < 4; ++i) part[m][i] = set(0.0f);
    int h = 0;
    for (; h + 4 <= queries.d_head; h += 4)
        for (int i = 0; i < 4; ++i) {
            const F keys = load_as<T>(page.keys, (h + i) * PAGE);
            for (int m = 0; m < M; ++m) part[m][i] = part[m][i] + keys * set(queries.q[row + m][h + i]);
        }
    for (; h < queries.d_head; ++h) {
        const F keys = load_as<T>(page.keys, h * PAGE);
        for (int m = 0; m < M; ++m) part[m][0] = part[m][0] + keys * set(queries.q[row + m][h]);
    }
    for (int m = 0; m < M; ++m) {
        F score = ((part[m][0] + part[m][1]) + (part[m][2] + part[m][3])) * set(queries.scale);
        if constexpr (sizeof(T) == 1) score = score * load(page.key_scales);
        float* to = queries.scores + (row + m) * queries.capacity + position;
        store(to, score);
        for (int t = 0; t < PAGE; ++t)
            if (position + t < queries.first_visible[row + m] || position + t >= queries.end_visible[row + m])
                to[t] = -__builtin_inff();
    }
}

/// Turns a row's scores into weights that sum to one. Weights of int8 values are also multiplied by the values' scales.
template <class T>
inline void softmax(float* scores, int begin, int end, const Page* pages) {
    F maxima = set(-__builtin_inff());
    for (int t = begin; t < end; t += 16) maxima = max(maxima, load(scores + t));
    const F maximum = set(largest(maxima));
    F total = set(0.0f);
    for (int t = begin; t < end; t += 16) {
        const F shifted = load(scores + t) - maximum;
        const F number = exp(shifted) + shifted * set(0.0f);  // NaN stays NaN, which max and exp may lose
        const F weight = where_negative(shifted + set(80.0f), set(0.0f), number);
        total = total + weight;
        store(scores + t, weight);
    }
    const F inverse = set(1.0f / sum(total));
    for (int t = begin; t < end; t += 16) {
        F weight = load(scores + t) * inverse;
        if constexpr (sizeof(T) == 1)
            weight = where_negative(set(0.0f) - weight, weight * load(pages[t / PAGE].value_scales), weight);
        store(scores + t, weight);
    }
}

/// The weighted sum of dimensions h .. h + 16 C - 1 of the values.
template <class T, int M, int C>
inline void weighted_values(const Queries& queries, int row, const Page* pages, int begin, int end, int h) {
    const int width = round_up(queries.d_head, 16);
    F total[M][C];
    for (int m = 0; m < M; ++m)
        for (int c = 0; c < C; ++c) total[m][c] = set(0.0f);
    const float* weights = queries.scores + row * queries.capacity;
    for (int position = begin; position < end; ++position) {
        const uint8_t* values = pages[position / PAGE].values;
        for (int c = 0; c < C; ++c) {
            const F value = load_as<T>(values, (position % PAGE) * width + h + 16 * c);
            for (int m = 0; m < M; ++m)
                total[m][c] = total[m][c] + value * set(weights[m * queries.capacity + position]);
        }
    }
    for (int m = 0; m < M; ++m)
        for (int c = 0; c < C; ++c) {
            alignas(64) float lane[16];
            store(lane, total[m][c]);
            for (int i = 0; i < 16 && h + 16 * c + i < queries.d_head; ++i) queries.out[row + m][h + 16 * c + i] = lane[i];
        }
}

template <class T, int M>
void attend_rows(const Queries& queries, int row, const Page* pages) {
    int first = queries.first_visible[row], last = queries.end_visible[row];
    for (int m = 1; m < M; ++m) {  // the union of all ranges; scores outside a query's own are -infinity
        first = queries.first_visible[row + m] < first ? queries.first_visible[row + m] : first;
        last = queries.end_visible[row + m] > last ? queries.end_visible[row + m] : last;
    }
    const int begin = first / PAGE * PAGE, end = round_up(last, PAGE);
    for (int position = begin; position < end; position += PAGE)
        page_scores<T, M>(queries, row, pages[position / PAGE], position);
    for (int m = 0; m < M; ++m) softmax<T>(queries.scores + (row + m) * queries.capacity, begin, end, pages);
    const int width = round_up(queries.d_head, 16);
    int h = 0;
    for (; h + 64 <= width; h += 64) weighted_values<T, M, 4>(queries, row, pages, first, last, h);
    for (; h < width; h += 16) weighted_values<T, M, 1>(queries, row, pages, first, last, h);
}

template <class T>
void attend_as(const Queries& queries, const Page* pages) {
    if (queries.count == Queries::MAX_COUNT)
        attend_rows<T, Queries::MAX_COUNT>(queries, 0, pages);
    else
        for (int row = 0; row < queries.count; ++row) attend_rows<T, 1>(queries, row, pages);
}

void attend(const Queries& queries, const Page* pages) {
    switch (queries.cache) {
        case Format::f32: attend_as<float>(queries, pages); break;
        case Format::bf16: attend_as<uint16_t>(queries, pages); break;
        default: attend_as<int8_t>(queries, pages);
    }
}
