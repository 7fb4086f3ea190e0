// Transforms to and from the tiles of Winograd's filtering F(m x m, r x r), for `winograd.py`, which multiplies them.
//
// Each channel of an image is cut into tiles of m x m output pixels, m = 7 - r, each of which depends on 6x6 input pixels.
// Transformed tiles are stored as 36 matrices (tiles, channels), `stride` values apart: one for each place of a tile.
// Channels come in groups of LANES, which are computed at once: one vector register of AVX-512, two of AVX2.
//
// Nothing here starts threads: the harness runs several images side by side, one core each, so that no number depends on
// the number of cores.

#include <cstdint>
#include <vector>

namespace {

constexpr int LANES = 16;
constexpr int SIDE = 6;

// aligned to a single float, because torch's tensors may begin anywhere; may_alias, because they are read as floats, too.
using Lanes = float __attribute__((vector_size(LANES * sizeof(float)), aligned(sizeof(float)), may_alias));

template <int COUNT> struct Matrix {
    float row[SIDE][COUNT] = {};
};

// The input of a convolution: a tile takes `pixels` along each side, from `first` on; tiles are `step` apart.
template <int FILTER> struct Input {  // B of the paper, transposed
    static constexpr int pixels = SIDE, step = SIDE + 1 - FILTER, first = -(FILTER / 2);
    static constexpr Matrix<SIDE> matrix = {{{4, 0, -5, 0, 1, 0},
                                             {0, -4, -4, 1, 1, 0},
                                             {0, 4, -4, -1, 1, 0},
                                             {0, -2, -1, 2, 1, 0},
                                             {0, 2, -1, -2, 1, 0},
                                             {0, 4, 0, -5, 0, 1}}};
};

// A of the paper: pixels are the coefficients of a polynomial, which is evaluated at five points and at infinity.
template <int COUNT> constexpr Matrix<COUNT> evaluation() {
    constexpr float points[SIDE - 1] = {0, 1, -1, 2, -2};
    Matrix<COUNT> matrix;
    for (int place = 0; place < SIDE - 1; place++) {
        float power = 1;
        for (int pixel = 0; pixel < COUNT; pixel++, power *= points[place]) matrix.row[place][pixel] = power;
    }
    matrix.row[SIDE - 1][COUNT - 1] = 1;
    return matrix;
}

// The output of a convolution, whose tiles do not overlap.
template <int FILTER> struct Output {
    static constexpr int pixels = SIDE + 1 - FILTER, step = pixels, first = 0;
    static constexpr Matrix<pixels> matrix = evaluation<pixels>();
};

// Transforms a row of pixels to places. Unrolled, because the matrix is a constant then: zeros cost nothing.
template <class Kind> inline void to_places(const Lanes* pixels, Lanes* places, int apart) {
#pragma GCC unroll 6
    for (int place = 0; place < SIDE; place++) {
        Lanes sum = {};
#pragma GCC unroll 6
        for (int pixel = 0; pixel < Kind::pixels; pixel++)
            if (Kind::matrix.row[place][pixel] != 0) sum += Kind::matrix.row[place][pixel] * pixels[pixel];
        places[place * apart] = sum;
    }
}

// Applies the transpose of `to_places`.
template <class Kind> inline void to_pixels(const Lanes* places, Lanes* pixels, int apart) {
#pragma GCC unroll 6
    for (int pixel = 0; pixel < Kind::pixels; pixel++) {
        Lanes sum = {};
#pragma GCC unroll 6
        for (int place = 0; place < SIDE; place++)
            if (Kind::matrix.row[place][pixel] != 0) sum += Kind::matrix.row[place][pixel] * places[place];
        pixels[pixel * apart] = sum;
    }
}

// The memory layout of images: channels first, or pixel by pixel (torch's channels last).
struct Images {
    const int64_t count, channels;
    const int height, width;
    const bool channels_last;

    int64_t offset(int64_t image, int64_t channel) const {
        return image * channels * height * width + (channels_last ? channel : channel * height * width);
    }
};

// LANES channels of one image, pixel by pixel, within a rim of zeros, so that tiles at the edge need no code of their own.
template <class Kind> class Plane {
  public:
    const int down, right;  // tiles

    explicit Plane(const Images& images)
        : down((images.height + Kind::step - 1) / Kind::step), right((images.width + Kind::step - 1) / Kind::step),
          images(images), wide(reach(right)), values(reach(down) * wide) {}

    Lanes* at(int y, int x) { return values.data() + (y - Kind::first) * wide + x - Kind::first; }

    // Calls `work` with the first pixel of each tile.
    template <class Work> void tiles(Work work) {
        for (int y = 0; y < down; y++)
            for (int x = 0; x < right; x++) work(y * Kind::step + Kind::first, x * Kind::step + Kind::first);
    }

    void clear() {
        for (Lanes& value : values) value = Lanes{};
    }

    void read(const float* channels) {
        each([](float* here, const float* there) { *here = *there; },
             [](Lanes* here, const float* there) { *here = *reinterpret_cast<const Lanes*>(there); }, channels);
    }

    void write(float* channels) {
        each([](const float* here, float* there) { *there = *here; },
             [](const Lanes* here, float* there) { *reinterpret_cast<Lanes*>(there) = *here; }, channels);
    }

  private:
    const Images images;
    const int wide;
    std::vector<Lanes> values;

    static int reach(int tiles) { return (tiles - 1) * Kind::step + Kind::pixels; }

    // `copy_value` copies the value of one channel, `copy_pixel` those of all channels of a pixel at once.
    template <class Single, class All, class Value> void each(Single copy_value, All copy_pixel, Value* there) {
        const int height = images.height, width = images.width;
        if (images.channels_last) {
            for (int y = 0; y < height; y++)
                for (int x = 0; x < width; x++, there += images.channels) copy_pixel(at(y, x), there);
            return;
        }
        for (int y = 0; y < height; y++)
            for (int lane = 0; lane < LANES; lane++) {
                float* here = reinterpret_cast<float*>(at(y, 0)) + lane;
                Value* row = there + (lane * height + y) * width;
                for (int x = 0; x < width; x++) copy_value(here + x * LANES, row + x);
            }
    }
};

template <class Kind> void to_tiles(const Images& images, const float* values, float* tiles, int64_t stride) {
    Plane<Kind> plane(images);
    for (int64_t image = 0; image < images.count; image++, tiles += plane.down * plane.right * images.channels)
        for (int64_t channel = 0; channel < images.channels; channel += LANES) {
            plane.read(values + images.offset(image, channel));
            float* tile = tiles + channel;
            plane.tiles([&](int y, int x) {
                Lanes half[SIDE][Kind::pixels], whole[SIDE];
                for (int row = 0; row < Kind::pixels; row++)
                    to_places<Kind>(plane.at(y + row, x), &half[0][row], Kind::pixels);
                for (int across = 0; across < SIDE; across++) {
                    to_places<Kind>(half[across], whole, 1);
                    for (int down = 0; down < SIDE; down++)
                        *reinterpret_cast<Lanes*>(tile + (down * SIDE + across) * stride) = whole[down];
                }
                tile += images.channels;
            });
        }
}

// Applies the transpose of `to_tiles`: if tiles of the input overlap, their values are added.
template <class Kind> void from_tiles(const Images& images, float* values, const float* tiles, int64_t stride) {
    Plane<Kind> plane(images);
    for (int64_t image = 0; image < images.count; image++, tiles += plane.down * plane.right * images.channels)
        for (int64_t channel = 0; channel < images.channels; channel += LANES) {
            plane.clear();
            const float* tile = tiles + channel;
            plane.tiles([&](int y, int x) {
                Lanes half[Kind::pixels][SIDE], whole[SIDE];
                for (int across = 0; across < SIDE; across++) {
                    for (int down = 0; down < SIDE; down++)
                        whole[down] = *reinterpret_cast<const Lanes*>(tile + (down * SIDE + across) * stride);
                    to_pixels<Kind>(whole, &half[0][across], SIDE);
                }
                for (int row = 0; row < Kind::pixels; row++) {
                    to_pixels<Kind>(half[row], whole, 1);
                    Lanes* pixels = plane.at(y + row, x);
                    for (int pixel = 0; pixel < Kind::pixels; pixel++) pixels[pixel] += whole[pixel];
                }
                tile += images.channels;
            });
            plane.write(values + images.offset(image, channel));
        }
}

}  // namespace

#define WAYS(KIND, NAME, FILTER)                                                                                      \
    void NAME##_to_tiles_##FILTER(int64_t count, int64_t channels, int height, int width, bool channels_last,         \
                                  const float* values, float* tiles, int64_t stride) {                                \
        to_tiles<KIND<FILTER>>(Images{count, channels, height, width, channels_last}, values, tiles, stride);         \
    }                                                                                                                 \
    void NAME##_from_tiles_##FILTER(int64_t count, int64_t channels, int height, int width, bool channels_last,       \
                                    float* values, const float* tiles, int64_t stride) {                              \
        from_tiles<KIND<FILTER>>(Images{count, channels, height, width, channels_last}, values, tiles, stride);       \
    }

extern "C" {
WAYS(Input, input, 3)
WAYS(Output, output, 3)
WAYS(Input, input, 5)
WAYS(Output, output, 5)
}
