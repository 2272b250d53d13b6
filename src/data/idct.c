/* The inverse DCT of a JPEG decoder that was built without an assembler, with the results of the one written in assembly
 * for x86-64, which Pillow has. On undamaged files the C functions of libjpeg give the same; a damaged block may hold
 * coefficients for which numbers of 16 bits overflow, and then the assembly wraps and saturates as here. */

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* For MULTIPLIER, the type of a quantization step. */
#define JPEG_INTERNALS
#include <jpeglib.h>

/* Fractional bits of the factors, and of the numbers between the two passes. */
#define FACTOR 13
#define BETWEEN 2

typedef int16_t block[8][8];

/* The sum of two products. Sums of these wrap. */
static inline uint32_t sum(int16_t a, int by, int16_t b, int with) { return (uint32_t)(a * by + b * with); }

static inline uint32_t shifted(int32_t value, int bits) { return (uint32_t)value << bits; }

static inline int32_t rounded(uint32_t value, int bits) { return (int32_t)(value + (1u << (bits - 1))) >> bits; }

static inline int16_t saturated(int32_t value) {
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

static inline int16_t descaled(uint32_t value, int bits) { return saturated(rounded(value, bits)); }

static inline JSAMPLE sample(int16_t value) {
    return (JSAMPLE)((value < -CENTERJSAMPLE ? -CENTERJSAMPLE : value >= CENTERJSAMPLE ? CENTERJSAMPLE - 1 : value) +
                     CENTERJSAMPLE);
}

/* Multiplies the coefficients by their steps. Returns whether those below the first row that are used are all zero. */
static int dequantize(const jpeg_component_info *component, const JCOEF *coefficients, block out, int unused) {
    const MULTIPLIER *steps = component->dct_table;
    int below = 0;
    for (int row = 0; row < 8; row++) {
        for (int i = 0; i < 8; i++) {
            int at = 8 * row + i;
            out[row][i] = (int16_t)(coefficients[at] * steps[at]);
            if (row != 0 && row != unused) below |= coefficients[at];
        }
    }
    return below == 0;
}

static void transpose(block b) {
    for (int row = 1; row < 8; row++) {
        for (int i = 0; i < row; i++) {
            int16_t other = b[i][row];
            b[i][row] = b[row][i];
            b[row][i] = other;
        }
    }
}

/* The first pass over columns of which only the first number is not zero. */
static void flat(block b) {
    for (int i = 0; i < 8; i++) b[0][i] = (int16_t)shifted(b[0][i], BETWEEN);
    for (int row = 1; row < 8; row++) memcpy(b[row], b[0], sizeof b[0]);
}

/* Eight columns of eight (Loeffler, Ligtenberg and Moschytz 1989, as in jidctint.c). */
static void columns_of_8(block b, int bits) {
    for (int i = 0; i < 8; i++) {
        uint32_t even0 = shifted((int16_t)(b[0][i] + b[4][i]), FACTOR);
        uint32_t even1 = shifted((int16_t)(b[0][i] - b[4][i]), FACTOR);
        uint32_t even2 = sum(b[2][i], 4433, b[6][i], 4433 - 15137);
        uint32_t even3 = sum(b[2][i], 4433 + 6270, b[6][i], 4433);
        uint32_t in0 = even0 + even3, in1 = even1 + even2, in2 = even1 - even2, in3 = even0 - even3;
        int16_t z3 = (int16_t)(b[3][i] + b[7][i]), z4 = (int16_t)(b[1][i] + b[5][i]);
        uint32_t turned3 = sum(z3, 9633 - 16069, z4, 9633), turned4 = sum(z3, 9633, z4, 9633 - 3196);
        uint32_t odd0 = sum(b[7][i], 2446 - 7373, b[1][i], -7373) + turned3;
        uint32_t odd1 = sum(b[5][i], 16819 - 20995, b[3][i], -20995) + turned4;
        uint32_t odd2 = sum(b[5][i], -20995, b[3][i], 25172 - 20995) + turned3;
        uint32_t odd3 = sum(b[7][i], -7373, b[1][i], 12299 - 7373) + turned4;
        b[0][i] = descaled(in0 + odd3, bits);
        b[1][i] = descaled(in1 + odd2, bits);
        b[2][i] = descaled(in2 + odd1, bits);
        b[3][i] = descaled(in3 + odd0, bits);
        b[4][i] = descaled(in3 - odd0, bits);
        b[5][i] = descaled(in2 - odd1, bits);
        b[6][i] = descaled(in1 - odd2, bits);
        b[7][i] = descaled(in0 - odd3, bits);
    }
}

/* Eight columns of eight to columns of four (jidctred.c). */
static void columns_of_4(block b, int bits) {
    for (int i = 0; i < 8; i++) {
        uint32_t odd0 = sum(b[1][i], 8697, b[3][i], -17799) + sum(b[5][i], 11893, b[7][i], -1730);
        uint32_t odd2 = sum(b[1][i], 20995, b[3][i], 7373) + sum(b[5][i], -4926, b[7][i], -4176);
        uint32_t even = shifted(b[0][i], FACTOR + 1), turned = sum(b[2][i], 15137, b[6][i], -6270);
        b[0][i] = descaled(even + turned + odd2, bits);
        b[1][i] = descaled(even - turned + odd0, bits);
        b[2][i] = descaled(even - turned - odd0, bits);
        b[3][i] = descaled(even + turned - odd2, bits);
    }
}

/* The odd part of a column of eight that becomes two. */
static inline uint32_t odd_of_2(int16_t a, int16_t b, int16_t c, int16_t d) {
    return sum(a, 29692, b, -10426) + sum(c, 6967, d, -5906);
}

static void write(block b, unsigned size, JSAMPARRAY rows, JDIMENSION at) {
    for (unsigned row = 0; row < size; row++) {
        for (unsigned i = 0; i < size; i++) rows[row][at + i] = sample(b[row][i]);
    }
}

static void idct_8(j_decompress_ptr info, jpeg_component_info *component, JCOEFPTR in, JSAMPARRAY out, JDIMENSION at) {
    (void)info;
    block b;
    if (dequantize(component, in, b, 0)) flat(b);
    else columns_of_8(b, FACTOR - BETWEEN);
    transpose(b);
    columns_of_8(b, FACTOR + BETWEEN + 3);
    transpose(b);
    write(b, 8, out, at);
}

static void idct_4(j_decompress_ptr info, jpeg_component_info *component, JCOEFPTR in, JSAMPARRAY out, JDIMENSION at) {
    (void)info;
    block b;
    if (dequantize(component, in, b, 4)) flat(b);
    else columns_of_4(b, FACTOR - BETWEEN + 1);
    transpose(b);
    columns_of_4(b, FACTOR + BETWEEN + 3 + 1);
    transpose(b);
    write(b, 4, out, at);
}

/* Of the first column, the assembly keeps all 32 bits between the passes. */
static void idct_2(j_decompress_ptr info, jpeg_component_info *component, JCOEFPTR in, JSAMPARRAY out, JDIMENSION at) {
    (void)info;
    block b;
    int32_t between[2][8];
    dequantize(component, in, b, 0);
    for (int i = 0; i < 8; i++) {
        uint32_t even = shifted(b[0][i], FACTOR + 2), odd = odd_of_2(b[1][i], b[3][i], b[5][i], b[7][i]);
        between[0][i] = rounded(even + odd, FACTOR - BETWEEN + 2);
        between[1][i] = rounded(even - odd, FACTOR - BETWEEN + 2);
    }
    for (int row = 0; row < 2; row++) {
        const int32_t *r = between[row];
        uint32_t even = shifted(r[0], FACTOR + 2);
        uint32_t odd = odd_of_2(saturated(r[1]), saturated(r[3]), saturated(r[5]), saturated(r[7]));
        out[row][at] = sample(descaled(even + odd, FACTOR + BETWEEN + 3 + 2));
        out[row][at + 1] = sample(descaled(even - odd, FACTOR + BETWEEN + 3 + 2));
    }
}

/* Called for each component once its size is known; 1 x 1 needs no more than libjpeg's. */
void caco_idct_select(j_decompress_ptr info, jpeg_component_info *component, jpeg_idct_method *method, int *category) {
    (void)info, (void)category;
    switch (component->DCT_scaled_size) {
    case 8: *method = idct_8; break;
    case 4: *method = idct_4; break;
    case 2: *method = idct_2; break;
    }
}
