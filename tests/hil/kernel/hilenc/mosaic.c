// SPDX-License-Identifier: GPL-2.0
#include "mosaic.h"

#include <linux/bitops.h>
#include <linux/errno.h>
#include <linux/kernel.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/string.h>

/* At these quantisers one level of a DC coefficient is exactly one step of the sample. */
#define LUMA_QP			28
#define CHROMA_QP_OFFSET	(-6)

#define NAL_SLICE	0x41	/* nal_ref_idc 2, type 1 */
#define NAL_IDR		0x65
#define NAL_SPS		0x67
#define NAL_PPS		0x68
#define NAL_FILLER	0x0c

#define MB_I_PCM	25
#define MB_INTRA_IN_P	5	/* mb_type of an intra macroblock in a P slice is that much higher */

/* -- bits -- */

struct writer {
	u8 *bytes;
	u32 used, room;
	u32 pending;		/* bits not yet written, the oldest highest */
	int pending_bits;
	u32 zeros;		/* zero bytes at the end of what is written */
	bool full;
};

static void put_byte(struct writer *w, u8 value)
{
	if (w->used + 2 > w->room) {
		w->full = true;
		return;
	}
	if (w->zeros >= 2 && value <= 3) {	/* emulation_prevention_three_byte */
		w->bytes[w->used++] = 3;
		w->zeros = 0;
	}
	w->bytes[w->used++] = value;
	w->zeros = value ? 0 : w->zeros + 1;
}

static void put(struct writer *w, int bits, u32 value)
{
	while (bits--) {
		w->pending = w->pending << 1 | ((value >> bits) & 1);
		if (++w->pending_bits == 8) {
			put_byte(w, w->pending);
			w->pending_bits = 0;
			w->pending = 0;
		}
	}
}

static void put_ue(struct writer *w, u32 value)
{
	int bits = fls(value + 1);

	put(w, bits - 1, 0);
	put(w, bits, value + 1);
}

static void put_se(struct writer *w, int value)
{
	put_ue(w, value > 0 ? 2 * value - 1 : -2 * value);
}

static void align_zero(struct writer *w)
{
	while (w->pending_bits)
		put(w, 1, 0);
}

static void begin_nal(struct writer *w, u8 header)
{
	static const u8 start_code[] = { 0, 0, 0, 1 };

	if (w->used + sizeof(start_code) + 1 > w->room) {
		w->full = true;
		return;
	}
	memcpy(w->bytes + w->used, start_code, sizeof(start_code));
	w->used += sizeof(start_code);
	w->bytes[w->used++] = header;
	w->zeros = 0;
}

static void end_nal(struct writer *w)	/* rbsp_trailing_bits */
{
	put(w, 1, 1);
	align_zero(w);
}

/* -- headers (7.3.2.1, 7.3.2.2, E.1.1) -- */

static void put_vui(struct writer *w, const struct mosaic *m)
{
	put(w, 4, 0);			/* aspect ratio, overscan, video signal, chroma location: not told */
	put(w, 1, 1);			/* timing_info_present_flag */
	put(w, 32, m->tick_num);	/* num_units_in_tick: of a field */
	put(w, 32, m->tick_den * 2);
	put(w, 1, 1);			/* fixed_frame_rate_flag */
	put(w, 3, 0);			/* no NAL HRD, no VCL HRD, no pic_struct */
	put(w, 1, 1);			/* bitstream_restriction_flag: nothing is reordered, so decoders hold nothing back */
	put(w, 1, 1);
	put_ue(w, 0);
	put_ue(w, 0);
	put_ue(w, 16);
	put_ue(w, 16);
	put_ue(w, 0);			/* max_num_reorder_frames */
	put_ue(w, 1);			/* max_dec_frame_buffering */
}

static void put_headers(struct writer *w, const struct mosaic *m)
{
	u32 columns = DIV_ROUND_UP(m->width, 16), rows = DIV_ROUND_UP(m->height, 16);
	u32 crop_right = (columns * 16 - m->width) / 2, crop_bottom = (rows * 16 - m->height) / 2;

	begin_nal(w, NAL_SPS);
	put(w, 8, m->profile_idc);
	put(w, 8, m->profile_idc == 66 ? 0xc0 : 0);	/* constraint_set0 and 1: constrained baseline */
	put(w, 8, m->level_idc);
	put_ue(w, 0);			/* seq_parameter_set_id */
	if (m->profile_idc == 100) {
		put_ue(w, 1);		/* chroma_format_idc 4:2:0 */
		put_ue(w, 0);
		put_ue(w, 0);
		put(w, 2, 0);
	}
	put_ue(w, 4);			/* frame_num has 8 bits */
	put_ue(w, 2);			/* pic_order_cnt_type: output in order of decoding */
	put_ue(w, 1);			/* max_num_ref_frames */
	put(w, 1, 0);
	put_ue(w, columns - 1);
	put_ue(w, rows - 1);
	put(w, 1, 1);			/* frame_mbs_only_flag */
	put(w, 1, 1);			/* direct_8x8_inference_flag */
	put(w, 1, crop_right || crop_bottom);
	if (crop_right || crop_bottom) {
		put_ue(w, 0);
		put_ue(w, crop_right);
		put_ue(w, 0);
		put_ue(w, crop_bottom);
	}
	put(w, 1, 1);			/* vui_parameters_present_flag */
	put_vui(w, m);
	end_nal(w);

	begin_nal(w, NAL_PPS);
	put_ue(w, 0);			/* pic_parameter_set_id */
	put_ue(w, 0);			/* seq_parameter_set_id */
	put(w, 2, 0);			/* CAVLC, no bottom field */
	put_ue(w, 0);			/* one slice group */
	put_ue(w, 0);
	put_ue(w, 0);
	put(w, 3, 0);			/* no weighted prediction */
	put_se(w, LUMA_QP - 26);
	put_se(w, 0);
	put_se(w, CHROMA_QP_OFFSET);
	put(w, 3, 4);			/* deblocking_filter_control_present_flag */
	end_nal(w);
}

/* -- macroblocks -- */

/* A block whose one coefficient is level (9.2). Neighbours have none, so nC is 0 for luma and -1 for chroma DC. */
static void put_dc(struct writer *w, int level, bool chroma)
{
	int code;

	if (!level) {			/* coeff_token of an empty block */
		if (chroma)
			put(w, 2, 1);
		else
			put(w, 1, 1);
		return;
	}
	if (abs(level) == 1) {		/* a trailing one */
		if (chroma)
			put(w, 1, 1);
		else
			put(w, 2, 1);
		put(w, 1, level < 0);
	} else {
		put(w, 6, chroma ? 7 : 5);
		code = (level > 0 ? 2 * level - 2 : -2 * level - 1) - 2;
		if (code < 14) {
			put(w, code, 0);
			put(w, 1, 1);
		} else if (code < 30) {
			put(w, 15, 1);
			put(w, 4, code - 14);
		} else {
			put(w, 16, 1);
			put(w, 12, code - 30);
		}
	}
	put(w, 1, 1);			/* total_zeros */
}

/* The rounded mean of a macroblock's samples of one component; at the right and lower edge, of those that are there. */
static u8 mean(const struct mosaic_component *c, const struct mosaic *m, u32 column, u32 row)
{
	u32 left = (column * 16) >> c->shift_x, right = min((column * 16 + 16), m->width) >> c->shift_x;
	u32 top = (row * 16) >> c->shift_y, bottom = min((row * 16 + 16), m->height) >> c->shift_y;
	u32 sum = 0, count = (right - left) * (bottom - top), x, y;

	for (y = top; y < bottom; y++)
		for (x = left; x < right; x++)
			sum += c->first[y * c->stride + x * c->step];
	return (sum + count / 2) / count;
}

static void means(const struct mosaic_source *src, const struct mosaic *m, u32 column, u32 row, u8 value[3])
{
	int k, r, g, b;

	for (k = 0; k < 3; k++)
		value[k] = mean(&src->part[k], m, column, row);
	if (!src->rgb)
		return;
	r = value[0];
	g = value[1];
	b = value[2];
	value[0] = 16 + (66 * r + 129 * g + 25 * b + 128) / 256;	/* ITU-R BT.601, limited range */
	value[1] = 128 + (-38 * r - 74 * g + 112 * b) / 256;
	value[2] = 128 + (112 * r - 94 * g - 18 * b) / 256;
}

static void put_exact(struct writer *w, const struct mosaic *m, const struct mosaic_source *src, u32 column, u32 row)
{
	u32 k, x, y;

	put_ue(w, MB_I_PCM);
	align_zero(w);
	for (k = 0; k < 3; k++) {
		const struct mosaic_component *c = &src->part[k];
		u32 size_x = 16 >> c->shift_x, size_y = 16 >> c->shift_y;
		u32 last_x = (m->width >> c->shift_x) - 1, last_y = (m->height >> c->shift_y) - 1;

		for (y = row * size_y; y < (row + 1) * size_y; y++)
			for (x = column * size_x; x < (column + 1) * size_x; x++)
				put_byte(w, c->first[min(y, last_y) * c->stride + min(x, last_x) * c->step]);
	}
}

/* Intra_16x16 with DC alone: predicted from the left, in the first column from above, in the corner from 128. */
static void put_flat(struct writer *w, const struct mosaic *m, const u8 value[3], u32 column, u32 row, bool key)
{
	u32 columns = DIV_ROUND_UP(m->width, 16), at = row * columns + column, k;
	bool chroma;
	int level[3];

	for (k = 0; k < 3; k++)
		level[k] = value[k] - (column ? m->shown[k][at - 1] : row ? m->shown[k][at - columns] : 128);
	chroma = level[1] || level[2];
	put_ue(w, (key ? 0 : MB_INTRA_IN_P) + 1 + (column ? 1 : row ? 0 : 2) + (chroma ? 4 : 0));
	put_ue(w, column ? 1 : row ? 2 : 0);	/* intra_chroma_pred_mode */
	put_se(w, 0);				/* mb_qp_delta */
	put_dc(w, level[0], false);
	if (chroma) {
		put_dc(w, level[1], true);
		put_dc(w, level[2], true);
	}
}

static void put_picture(struct writer *w, struct mosaic *m, const struct mosaic_source *src, bool key, bool exact)
{
	u32 columns = DIV_ROUND_UP(m->width, 16), rows = DIV_ROUND_UP(m->height, 16), column, row, k, skipped = 0;

	begin_nal(w, key ? NAL_IDR : NAL_SLICE);
	put_ue(w, 0);			/* first_mb_in_slice */
	put_ue(w, key ? 7 : 5);		/* slice_type: all I, all P */
	put_ue(w, 0);
	put(w, 8, m->frame_num & 255);
	if (key)
		put_ue(w, m->idr_pic_id++ & 1);
	else
		put(w, 2, 0);		/* default reference list */
	put(w, key ? 2 : 1, 0);		/* dec_ref_pic_marking */
	put_se(w, 0);
	put_ue(w, 1);			/* disable_deblocking_filter_idc */
	for (row = 0; row < rows; row++) {
		for (column = 0; column < columns; column++) {
			u32 at = row * columns + column;
			u8 value[3];

			means(src, m, column, row, value);
			if (!key && value[0] == m->shown[0][at] && value[1] == m->shown[1][at] && value[2] == m->shown[2][at]) {
				skipped++;
				continue;
			}
			if (!key) {
				put_ue(w, skipped);	/* mb_skip_run */
				skipped = 0;
			}
			if (exact)
				put_exact(w, m, src, column, row);
			else
				put_flat(w, m, value, column, row, key);
			for (k = 0; k < 3; k++)
				m->shown[k][at] = value[k];
		}
	}
	if (skipped)
		put_ue(w, skipped);
	end_nal(w);
}

/* -- what the device calls -- */

int mosaic_start(struct mosaic *m)
{
	u32 k, count = DIV_ROUND_UP(m->width, 16) * DIV_ROUND_UP(m->height, 16);

	mosaic_end(m);
	for (k = 0; k < 3; k++) {
		m->shown[k] = kvzalloc(count, GFP_KERNEL);
		if (!m->shown[k]) {
			mosaic_end(m);
			return -ENOMEM;
		}
	}
	m->exact = false;
	return 0;
}

void mosaic_end(struct mosaic *m)
{
	u32 k;

	for (k = 0; k < 3; k++) {
		kvfree(m->shown[k]);
		m->shown[k] = NULL;
	}
}

int mosaic_encode(struct mosaic *m, const struct mosaic_source *src, bool key, bool headers, bool exact, u8 *dst, u32 room)
{
	struct writer w = { .bytes = dst, .room = room };

	m->frame_num = key ? 0 : m->frame_num + 1;
	if (key && headers)
		put_headers(&w, m);
	m->exact = key && exact;
	put_picture(&w, m, src, key, m->exact);
	return w.full ? -ENOSPC : w.used;
}

u32 mosaic_fill(u8 *dst, u32 used, u32 want)
{
	struct writer w = { .bytes = dst, .used = used, .room = want };

	if (used + 8 > want)
		return used;
	begin_nal(&w, NAL_FILLER);
	memset(dst + w.used, 0xff, want - w.used - 1);
	dst[want - 1] = 0x80;
	return want;
}
