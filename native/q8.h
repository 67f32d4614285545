// The format q8 (bluejay.gpt.quantization.q8). Included once per instruction set.

struct Q8 {
    template <int N, int M>
    static void multiply(const Matrix& matrix, int block, const uint8_t* input, const float* scales, const int32_t* offsets,
                         F (&total)[N][M]) {
        constexpr int H = tokens_at_once(N, M);
        const uint8_t* w = matrix.block(block);
        const int8_t* x = reinterpret_cast<const int8_t*>(input);
        for (int group = 0; group < matrix.groups(); ++group, w += GROUP * BLOCK, x += M * GROUP) {
            F weight_scales[N];
            for (int n = 0; n < N; ++n) {
                const uint8_t* group_scales = matrix.block_scales(block + n) + group * Matrix::SCALE_BYTES;
                __builtin_prefetch(group_scales + PREFETCH_SCALE_BYTES);
                weight_scales[n] = from_bf16(reinterpret_cast<const uint16_t*>(group_scales));
            }
            for (int h = 0; h < M; h += H) {
                I sums[N][H];
                for (int m = 0; m < H; ++m)
                    for (int n = 0; n < N; ++n) sums[n][m] = start(offsets[h + m] + offsets[M + h + m]);
                for (int k = 0; k < GROUP; k += 4) {
                    Bytes weights[N];
                    read_weights(matrix, w + k * BLOCK, weights);
                    add_products(weights, x + h * GROUP + k, sums);
                }
                add_scaled(sums, weight_scales, scales + h, h, total);
            }
            scales += M, offsets += 2 * M;
        }
    }
    static void unpack(const Matrix& matrix, int row, float* out) {
        const uint8_t* block = matrix.block(row / BLOCK);
        const uint16_t* scales = reinterpret_cast<const uint16_t*>(matrix.block_scales(row / BLOCK));
        const int lane = row % BLOCK;
        for (int i = 0; i < matrix.columns; ++i) {
            const int code = block[size_t(i) / 4 * 4 * BLOCK + 4 * lane + i % 4];
            out[i] = float_of_bf16(scales[i / GROUP * BLOCK + lane]) * (code - 128);
        }
    }
};

/// Codes + 128 and bfloat16 scales of one row of groups. Equal to bluejay.gpt.quantization.q8.Q8.quantize_with_torch.
void quantize_q8(const float* row, int groups, uint8_t* codes, uint8_t* scales) {
    for (int group = 0; group < groups; ++group, row += GROUP, codes += GROUP) {
        F size = set(0.0f);
        for (int i = 0; i < GROUP; i += 16) size = max(size, abs(load(row + i)));
        const uint16_t stored = bf16_of_float(largest(size) / 127);
        reinterpret_cast<uint16_t*>(scales)[group] = stored;
        const float scale = float_of_bf16(stored);
        const F inverse = set(scale != 0 ? 1 / scale : 0.0f);
        for (int i = 0; i < GROUP; i += 16) {
            const F x = min(max(load(row + i) * inverse, set(-127.0f)), set(127.0f));
            to_int8(reinterpret_cast<int8_t*>(codes) + i, round(x) + set(int32_t{128}));
        }
    }
}
