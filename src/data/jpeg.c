/* The C part of jpeg.rs: a reusable decompressor that returns errors as values.
 * libjpeg's error_exit must not return; here it leaves by longjmp, past C frames only. */

#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

/* From idct.c. */
void caco_idct_select(j_decompress_ptr info, jpeg_component_info *component, jpeg_idct_method *method, int *category);

/* Whether the library has no inverse DCT in assembly on a machine for which Pillow has one: nasm was missing when it was
 * built. */
#if defined(__x86_64__) && !defined(WITH_SIMD)
#define WITHOUT_ASSEMBLY 1
#else
#define WITHOUT_ASSEMBLY 0
#endif

/* A progressive file may hold any number of scans, each of which walks the whole image: a few kilobytes could keep a
 * thread busy for hours. No encoder writes more than a few dozen. */
#define SCANS_MAX 500

typedef struct {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf leave;
    int own_idct;
    char message[JMSG_LENGTH_MAX];
} decoder;

static void fail(j_common_ptr info) {
    decoder *d = (decoder *)info->client_data;
    info->err->format_message(info, d->message);
    longjmp(d->leave, 1);
}

/* Running out of data is an error, as in PIL; other warnings (stray bytes, a bad code in the middle) are ignored,
 * as in PIL: ImageNet has files with them. */
static void warn(j_common_ptr info, int level) {
    if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) fail(info);
}

static void silent(j_common_ptr info) { (void)info; }

static void count_scans(j_common_ptr info) {
    decoder *d = (decoder *)info->client_data;
    if (info->is_decompressor && d->info.input_scan_number > SCANS_MAX) {
        snprintf(d->message, sizeof d->message, "more than %d scans", SCANS_MAX);
        longjmp(d->leave, 1);
    }
}

void caco_jpeg_free(decoder *d) {
    if (d != NULL) jpeg_destroy_decompress(&d->info);
    free(d);
}

static int create(decoder *d) {
    d->info.err = jpeg_std_error(&d->errors);
    d->errors.error_exit = fail;
    d->errors.emit_message = warn;
    d->errors.output_message = silent;
    d->info.client_data = d;
    if (setjmp(d->leave)) return 1;
    jpeg_create_decompress(&d->info);
    d->progress.progress_monitor = count_scans;
    d->info.progress = &d->progress;
    if (d->own_idct) jpeg_set_idct_method_selector(&d->info, caco_idct_select);
    return 0;
}

/* Returns NULL if memory runs out. With own_idct, the inverse DCT is that of idct.c even if the library has assembly. */
decoder *caco_jpeg_new(int own_idct) {
    decoder *d = calloc(1, sizeof *d);
    if (d == NULL) return NULL;
    d->own_idct = own_idct || WITHOUT_ASSEMBLY;
    if (create(d) != 0) {
        caco_jpeg_free(d);
        return NULL;
    }
    return d;
}

/* A decompressor keeps quantization and Huffman tables from one image to the next. A file that leaves its tables out, as
 * frames of Motion JPEG do, would be decoded with those of whichever image came before. Each image therefore gets a new
 * decompressor, which takes missing Huffman tables from the standard (Annex K.3), as libjpeg and PIL do. */
static int renew(decoder *d) {
    jpeg_destroy_decompress(&d->info);
    return create(d);
}

const char *caco_jpeg_message(const decoder *d) { return d->message; }

/* Reads the header. Outputs the size in pixels after scaling by 1/scale (1, 2, 4 or 8). caco_jpeg_read will write 4
 * samples per pixel: R, G, B, 255, or the C, M, Y, K of the file if cmyk is set. */
int caco_jpeg_open(decoder *d, const unsigned char *data, size_t length, unsigned scale, unsigned *width,
                   unsigned *height, int *cmyk) {
    if (renew(d) != 0) return 1;
    if (setjmp(d->leave)) {
        jpeg_abort_decompress(&d->info);
        return 1;
    }
    jpeg_mem_src(&d->info, (unsigned char *)data, length);
    jpeg_read_header(&d->info, TRUE);
    d->info.scale_num = 1;
    d->info.scale_denom = scale;
    d->info.dct_method = JDCT_ISLOW;
    d->info.do_fancy_upsampling = TRUE;
    *cmyk = d->info.jpeg_color_space == JCS_CMYK || d->info.jpeg_color_space == JCS_YCCK;
    d->info.out_color_space = *cmyk ? JCS_CMYK : JCS_EXT_RGBA;
    if (d->info.num_components == 2) ERREXIT(&d->info, JERR_BAD_J_COLORSPACE);
    jpeg_calc_output_dimensions(&d->info);
    *width = d->info.output_width;
    *height = d->info.output_height;
    return 0;
}

/* Decodes the image opened by caco_jpeg_open: height consecutive rows of width * 4 bytes. */
int caco_jpeg_read(decoder *d, unsigned char *out) {
    if (setjmp(d->leave)) {
        jpeg_abort_decompress(&d->info);
        return 1;
    }
    jpeg_start_decompress(&d->info);
    size_t stride = (size_t)d->info.output_width * 4;
    while (d->info.output_scanline < d->info.output_height) {
        JSAMPROW rows[8];
        unsigned count = d->info.output_height - d->info.output_scanline;
        if (count > 8) count = 8;
        for (unsigned i = 0; i < count; i++) rows[i] = out + (d->info.output_scanline + i) * stride;
        jpeg_read_scanlines(&d->info, rows, count);
    }
    jpeg_finish_decompress(&d->info);
    return 0;
}
