/* SPDX-License-Identifier: GPL-2.0 */
/*
 * H.264 (ITU-T H.264, constrained baseline tools only) of a picture's mosaic: each macroblock is one Intra_16x16 block that
 * shows the rounded mean of its Y, Cb and Cr, so that who decodes it can say exactly what must come out.
 */
#ifndef HILENC_MOSAIC_H
#define HILENC_MOSAIC_H

#include <linux/types.h>

/* Where one colour component of a raw picture lies: sample (x, y) is at first[y * stride + x * step]. */
struct mosaic_component {
	const u8 *first;
	u32 stride;
	u32 step;
	u8 shift_x, shift_y;	/* subsampling, as a power of two */
};

struct mosaic_source {
	struct mosaic_component part[3];	/* Y, Cb, Cr, or R, G, B */
	bool rgb;
};

struct mosaic {
	u32 width, height;		/* of the picture, even */
	u8 profile_idc;			/* 66, 77, 100 */
	u8 level_idc;
	u32 tick_num, tick_den;	/* duration of a picture in seconds, as a fraction */
	u32 frame_num;
	u32 idr_pic_id;
	bool exact;			/* the last picture was I_PCM, which no mosaic can continue */
	u8 *shown[3];			/* what the decoder shows now, one value a macroblock */
};

int mosaic_start(struct mosaic *m);
void mosaic_end(struct mosaic *m);

/*
 * One access unit with start codes into dst; returns its bytes, or -ENOSPC. A key picture is an IDR picture, and headers
 * (SPS and PPS) belong before the first of them. exact: I_PCM, for key pictures of planar 4:2:0 sources.
 */
int mosaic_encode(struct mosaic *m, const struct mosaic_source *src, bool key, bool headers, bool exact, u8 *dst, u32 room);

/* Filler data (NAL unit type 12) from dst[used] up to exactly want bytes; returns the bytes then used. */
u32 mosaic_fill(u8 *dst, u32 used, u32 want);

#endif
