// The shapes of AMX's tile registers. Included once per file that uses them, within its namespace.

/// Each register has 16 rows of 64 bytes, unless it is told otherwise.
struct alignas(64) TileShapes {
    uint8_t palette = 1, unused[15] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    void load() const { _tile_loadconfig(this); }
};
