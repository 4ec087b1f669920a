// SPDX-License-Identifier: GPL-2.0
/*
 * A stateful memory-to-memory H.264 encoder (V4L2, "Memory-to-memory Stateful Video Encoder Interface") with the surface of
 * a Raspberry Pi's bcm2835-codec-encode node, and every fault of such a device by a module parameter.
 */
#include <linux/list.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/workqueue.h>
#include <media/v4l2-ctrls.h>
#include <media/v4l2-device.h>
#include <media/v4l2-event.h>
#include <media/v4l2-ioctl.h>
#include <media/v4l2-mem2mem.h>
#include <media/videobuf2-vmalloc.h>

#include "camera.h"
#include "mosaic.h"

#define SIZE_MIN	32u
#define SIZE_MAX	1920u
#define CODED_MIN	(512u << 10)
#define CODED_MAX	(8u << 20)

static char *card = "bcm2835-codec-encode";
module_param(card, charp, 0444);
MODULE_PARM_DESC(card, "name told by VIDIOC_QUERYCAP");
static int nr = 11;
module_param(nr, int, 0444);
MODULE_PARM_DESC(nr, "number of the node: /dev/videoN");

/* Faults. Written by the tests between pictures, so no lock. */
static uint error_next, corrupt_next, delay_once_ms, encode_us;
static uint max_ctx = 8, max_bufs = 32;
static uint no_import;
static bool stall, fail_streamon, pcm, fill = true;
module_param(error_next, uint, 0644);
MODULE_PARM_DESC(error_next, "so many pictures fail (V4L2_BUF_FLAG_ERROR)");
module_param(corrupt_next, uint, 0644);
MODULE_PARM_DESC(corrupt_next, "so many pictures have damaged bytes");
module_param(delay_once_ms, uint, 0644);
MODULE_PARM_DESC(delay_once_ms, "the next picture takes so much longer");
module_param(encode_us, uint, 0644);
MODULE_PARM_DESC(encode_us, "each picture takes so much longer");
module_param(stall, bool, 0644);
MODULE_PARM_DESC(stall, "nothing completes");
module_param(max_ctx, uint, 0644);
MODULE_PARM_DESC(max_ctx, "open fails with EBUSY beyond so many");
module_param(max_bufs, uint, 0644);
MODULE_PARM_DESC(max_bufs, "VIDIOC_REQBUFS fails with ENOMEM beyond so many");
module_param(fail_streamon, bool, 0644);
MODULE_PARM_DESC(fail_streamon, "VIDIOC_STREAMON fails with ENOMEM");
module_param(no_import, uint, 0644);
MODULE_PARM_DESC(no_import, "memory of others (DMABUF) is refused by 1: VIDIOC_REQBUFS, 2: VIDIOC_QBUF");
module_param(pcm, bool, 0644);
MODULE_PARM_DESC(pcm, "key pictures as I_PCM, bit exact");
module_param(fill, bool, 0644);
MODULE_PARM_DESC(fill, "filler data up to the bit rate");

static uint frames, imported, live;
module_param(frames, uint, 0444);
MODULE_PARM_DESC(frames, "pictures encoded");
module_param(imported, uint, 0444);
MODULE_PARM_DESC(imported, "of those, read from memory of others");
module_param(live, uint, 0444);
MODULE_PARM_DESC(live, "open handles");

/* One plugging: lives until the last handle is closed, however long after it was unplugged. */
struct encoder {
	struct v4l2_device v4l2;
	struct video_device node;
	struct v4l2_m2m_dev *m2m;
	struct mutex lock;		/* ioctls, and both queues of every session */
};

struct queue {
	u32 pixelformat, width, height, bytesperline, sizeimage, sequence;
};

/* One open handle. */
struct session {
	struct v4l2_fh fh;
	struct encoder *encoder;
	struct v4l2_ctrl_handler controls;
	struct delayed_work work;
	struct queue raw, coded;
	struct v4l2_rect crop;
	struct v4l2_fract frame_time;
	struct mosaic mosaic;
	u32 bitrate, period;
	u32 since_key;
	bool repeat_headers, key_wanted, first;
};

static struct platform_device *platform;
static struct encoder *plugged;		/* NULL while unplugged */
static DEFINE_MUTEX(plug_lock);

static struct session *session_of(struct file *file)
{
	return container_of(file->private_data, struct session, fh);
}

static struct queue *queue_of(struct session *s, u32 type)
{
	return V4L2_TYPE_IS_CAPTURE(type) ? &s->coded : &s->raw;
}

/* -- pictures -- */

struct raw_format {
	u32 pixelformat;
	u32 align;			/* of bytesperline */
	u8 bytes_x2;			/* bytesperline of a sample row, in half samples */
	u8 rows_x2;			/* rows of bytesperline in the buffer, in half rows */
};

static const struct raw_format raw_formats[] = {
	{ V4L2_PIX_FMT_YUV420, 64, 2, 3 },
	{ V4L2_PIX_FMT_NV12, 32, 2, 3 },
	{ V4L2_PIX_FMT_YUYV, 64, 4, 2 },
	{ V4L2_PIX_FMT_RGB24, 64, 6, 2 },
	{ V4L2_PIX_FMT_BGR24, 64, 6, 2 },
};

static const struct raw_format *find_format(u32 pixelformat)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(raw_formats); i++)
		if (raw_formats[i].pixelformat == pixelformat)
			return &raw_formats[i];
	return &raw_formats[0];
}

static struct mosaic_source source_of(const struct queue *q, const u8 *at)
{
	u32 line = q->bytesperline;
	const u8 *chroma = at + line * q->height;

	switch (q->pixelformat) {
	case V4L2_PIX_FMT_NV12:
		return (struct mosaic_source){
			{ { at, line, 1, 0, 0 }, { chroma, line, 2, 1, 1 }, { chroma + 1, line, 2, 1, 1 } }, false };
	case V4L2_PIX_FMT_YUYV:
		return (struct mosaic_source){
			{ { at, line, 2, 0, 0 }, { at + 1, line, 4, 1, 0 }, { at + 3, line, 4, 1, 0 } }, false };
	case V4L2_PIX_FMT_RGB24:
		return (struct mosaic_source){
			{ { at, line, 3, 0, 0 }, { at + 1, line, 3, 0, 0 }, { at + 2, line, 3, 0, 0 } }, true };
	case V4L2_PIX_FMT_BGR24:
		return (struct mosaic_source){
			{ { at + 2, line, 3, 0, 0 }, { at + 1, line, 3, 0, 0 }, { at, line, 3, 0, 0 } }, true };
	default:
		return (struct mosaic_source){
			{ { at, line, 1, 0, 0 }, { chroma, line / 2, 1, 1, 1 },
			  { chroma + line / 2 * (q->height / 2), line / 2, 1, 1, 1 } }, false };
	}
}

/* Returns the bytes of the access unit, 0 where it failed. */
static u32 encode(struct session *s, const u8 *raw, u8 *coded, u32 room, bool *key)
{
	struct mosaic_source src = source_of(&s->raw, raw);
	bool headers = s->first || s->repeat_headers;
	u64 share;
	int used;
	u32 i;

	*key = s->first || s->key_wanted || s->mosaic.exact || (s->period && s->since_key + 1 >= s->period);
	s->since_key = *key ? 0 : s->since_key + 1;
	s->first = false;
	s->key_wanted = false;
	used = mosaic_encode(&s->mosaic, &src, *key, headers, pcm && s->raw.pixelformat == V4L2_PIX_FMT_YUV420, coded, room);
	if (error_next) {
		error_next--;
		used = -EIO;
	}
	if (used < 0) {
		s->key_wanted = true;
		return 0;
	}
	share = div_u64((u64)s->bitrate * s->frame_time.numerator, 8 * max(1u, s->frame_time.denominator));
	if (fill)
		used = mosaic_fill(coded, used, min_t(u64, room, share));
	if (corrupt_next) {
		corrupt_next--;
		for (i = used / 3; i < used / 3 + 40 && i < used; i++)
			coded[i] ^= 0x5a;
	}
	return used;
}

/* -- jobs -- */

static const struct v4l2_event end_of_stream = { .type = V4L2_EVENT_EOS };

static void run_job(struct work_struct *work)
{
	struct session *s = container_of(to_delayed_work(work), struct session, work);
	struct v4l2_m2m_ctx *m2m = s->fh.m2m_ctx;
	struct vb2_v4l2_buffer *raw = v4l2_m2m_next_src_buf(m2m), *coded = v4l2_m2m_next_dst_buf(m2m);
	enum vb2_buffer_state state = VB2_BUF_STATE_DONE;
	bool key = false;
	u32 used;

	if (stall && video_is_registered(&s->encoder->node)) {
		schedule_delayed_work(&s->work, msecs_to_jiffies(5));
		return;
	}
	if (raw && coded) {	/* a queue that was stopped meanwhile has none */
		used = encode(s, vb2_plane_vaddr(&raw->vb2_buf, 0), vb2_plane_vaddr(&coded->vb2_buf, 0),
			      vb2_plane_size(&coded->vb2_buf, 0), &key);
		if (!used)
			state = VB2_BUF_STATE_ERROR;
		vb2_set_plane_payload(&coded->vb2_buf, 0, used);
		v4l2_m2m_buf_copy_metadata(raw, coded, false);
		coded->flags &= ~(V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME);
		coded->flags |= key ? V4L2_BUF_FLAG_KEYFRAME : V4L2_BUF_FLAG_PFRAME;
		coded->field = V4L2_FIELD_NONE;
		raw->sequence = s->raw.sequence++;
		coded->sequence = s->coded.sequence++;
		frames++;
		imported += raw->vb2_buf.memory == VB2_MEMORY_DMABUF;
		if (v4l2_m2m_is_last_draining_src_buf(m2m, raw)) {
			coded->flags |= V4L2_BUF_FLAG_LAST;
			v4l2_event_queue_fh(&s->fh, &end_of_stream);
			v4l2_m2m_mark_stopped(m2m);
		}
	}
	v4l2_m2m_buf_done_and_job_finish(s->encoder->m2m, m2m, state);
}

static void device_run(void *priv)
{
	struct session *s = priv;
	u32 us = encode_us + 1000 * delay_once_ms;

	delay_once_ms = 0;
	schedule_delayed_work(&s->work, usecs_to_jiffies(us));
}

static void job_abort(void *priv)
{
	/* a job ends by itself; v4l2_m2m_cancel_job waits for it */
}

static const struct v4l2_m2m_ops m2m_ops = { .device_run = device_run, .job_abort = job_abort };

/* -- buffers -- */

static int queue_setup(struct vb2_queue *vq, unsigned int *buffers, unsigned int *planes, unsigned int sizes[],
		       struct device *alloc[])
{
	u32 size = queue_of(vb2_get_drv_priv(vq), vq->type)->sizeimage;

	if (*buffers > max_bufs)
		return -ENOMEM;
	if (*planes)
		return sizes[0] < size ? -EINVAL : 0;
	*planes = 1;
	sizes[0] = size;
	return 0;
}

static int buf_prepare(struct vb2_buffer *vb)
{
	if (no_import == 2 && vb->memory == VB2_MEMORY_DMABUF && V4L2_TYPE_IS_OUTPUT(vb->vb2_queue->type))
		return -EFAULT;
	to_vb2_v4l2_buffer(vb)->field = V4L2_FIELD_NONE;
	return vb2_plane_size(vb, 0) < queue_of(vb2_get_drv_priv(vb->vb2_queue), vb->vb2_queue->type)->sizeimage ? -EINVAL : 0;
}

static void buf_queue(struct vb2_buffer *vb)
{
	struct vb2_v4l2_buffer *buffer = to_vb2_v4l2_buffer(vb);
	struct session *s = vb2_get_drv_priv(vb->vb2_queue);

	if (V4L2_TYPE_IS_CAPTURE(vb->vb2_queue->type) && vb2_is_streaming(vb->vb2_queue) &&
	    v4l2_m2m_dst_buf_is_last(s->fh.m2m_ctx)) {
		vb2_set_plane_payload(vb, 0, 0);
		buffer->sequence = s->coded.sequence++;
		v4l2_m2m_last_buffer_done(s->fh.m2m_ctx, buffer);
		v4l2_event_queue_fh(&s->fh, &end_of_stream);
		return;
	}
	v4l2_m2m_buf_queue(s->fh.m2m_ctx, buffer);
}

static void give_back(struct vb2_queue *vq, enum vb2_buffer_state state)
{
	struct session *s = vb2_get_drv_priv(vq);
	struct vb2_v4l2_buffer *buffer;

	while ((buffer = V4L2_TYPE_IS_OUTPUT(vq->type) ? v4l2_m2m_src_buf_remove(s->fh.m2m_ctx) :
							 v4l2_m2m_dst_buf_remove(s->fh.m2m_ctx)))
		v4l2_m2m_buf_done(buffer, state);
}

static int start_streaming(struct vb2_queue *vq, unsigned int count)
{
	struct session *s = vb2_get_drv_priv(vq);
	int ret = fail_streamon ? -ENOMEM : 0;

	if (!ret && V4L2_TYPE_IS_CAPTURE(vq->type)) {
		s->mosaic.width = s->crop.width;
		s->mosaic.height = s->crop.height;
		s->mosaic.tick_num = s->frame_time.numerator;
		s->mosaic.tick_den = s->frame_time.denominator;
		s->first = true;
		ret = mosaic_start(&s->mosaic);
	}
	if (ret) {
		give_back(vq, VB2_BUF_STATE_QUEUED);
		return ret;
	}
	queue_of(s, vq->type)->sequence = 0;
	v4l2_m2m_update_start_streaming_state(s->fh.m2m_ctx, vq);
	return 0;
}

static void stop_streaming(struct vb2_queue *vq)
{
	struct session *s = vb2_get_drv_priv(vq);

	give_back(vq, VB2_BUF_STATE_ERROR);
	v4l2_m2m_update_stop_streaming_state(s->fh.m2m_ctx, vq);
	if (V4L2_TYPE_IS_OUTPUT(vq->type) && v4l2_m2m_has_stopped(s->fh.m2m_ctx))
		v4l2_event_queue_fh(&s->fh, &end_of_stream);
}

static const struct vb2_ops buffer_ops = {
	.queue_setup = queue_setup,
	.buf_prepare = buf_prepare,
	.buf_queue = buf_queue,
	.start_streaming = start_streaming,
	.stop_streaming = stop_streaming,
	.wait_prepare = vb2_ops_wait_prepare,
	.wait_finish = vb2_ops_wait_finish,
};

static int init_queue(struct session *s, struct vb2_queue *vq, u32 type)
{
	vq->type = type;
	vq->io_modes = no_import == 1 ? VB2_MMAP : VB2_MMAP | VB2_DMABUF;
	vq->drv_priv = s;
	vq->buf_struct_size = sizeof(struct v4l2_m2m_buffer);
	vq->ops = &buffer_ops;
	vq->mem_ops = &vb2_vmalloc_memops;
	vq->timestamp_flags = V4L2_BUF_FLAG_TIMESTAMP_COPY;
	vq->lock = &s->encoder->lock;
	return vb2_queue_init(vq);
}

static int init_queues(void *priv, struct vb2_queue *raw, struct vb2_queue *coded)
{
	return init_queue(priv, raw, V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE) ?:
	       init_queue(priv, coded, V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE);
}

/* -- ioctls -- */

static int querycap(struct file *file, void *priv, struct v4l2_capability *cap)
{
	strscpy(cap->driver, "bcm2835-codec", sizeof(cap->driver));
	strscpy(cap->card, card, sizeof(cap->card));
	strscpy(cap->bus_info, "platform:bcm2835-codec", sizeof(cap->bus_info));
	return 0;
}

static int enum_fmt(struct file *file, void *priv, struct v4l2_fmtdesc *desc)
{
	if (desc->index >= (V4L2_TYPE_IS_CAPTURE(desc->type) ? 1 : ARRAY_SIZE(raw_formats)))
		return -EINVAL;
	desc->pixelformat = V4L2_TYPE_IS_CAPTURE(desc->type) ? V4L2_PIX_FMT_H264 : raw_formats[desc->index].pixelformat;
	return 0;
}

static int enum_framesizes(struct file *file, void *priv, struct v4l2_frmsizeenum *size)
{
	if (size->index)
		return -EINVAL;
	size->type = V4L2_FRMSIZE_TYPE_STEPWISE;
	size->stepwise = (struct v4l2_frmsize_stepwise){ SIZE_MIN, SIZE_MAX, 2, SIZE_MIN, SIZE_MAX, 2 };
	return 0;
}

/* The nearest format there is. The height stays as asked: padded to macroblocks, a DMABUF of exact size would be refused. */
static struct queue fit(const struct v4l2_format *format)
{
	const struct v4l2_pix_format_mplane *pix = &format->fmt.pix_mp;
	const struct raw_format *raw = find_format(pix->pixelformat);
	struct queue q = {
		.width = clamp(round_up(pix->width, 2), SIZE_MIN, SIZE_MAX),
		.height = clamp(round_up(pix->height, 2), SIZE_MIN, SIZE_MAX),
	};

	if (V4L2_TYPE_IS_CAPTURE(format->type)) {
		q.pixelformat = V4L2_PIX_FMT_H264;
		q.sizeimage = clamp(pix->plane_fmt[0].sizeimage, CODED_MIN, CODED_MAX);
	} else {
		q.pixelformat = raw->pixelformat;
		q.bytesperline = round_up(max(q.width * raw->bytes_x2 / 2, min(pix->plane_fmt[0].bytesperline, 8192u)),
					  raw->align);
		q.sizeimage = q.bytesperline * q.height * raw->rows_x2 / 2;
	}
	return q;
}

static void tell(const struct queue *q, struct v4l2_format *format)
{
	struct v4l2_pix_format_mplane *pix = &format->fmt.pix_mp;

	pix->width = q->width;
	pix->height = q->height;
	pix->pixelformat = q->pixelformat;
	pix->num_planes = 1;
	pix->field = V4L2_FIELD_NONE;
	pix->plane_fmt[0].bytesperline = q->bytesperline;
	pix->plane_fmt[0].sizeimage = q->sizeimage;
	if (!pix->colorspace)
		pix->colorspace = V4L2_COLORSPACE_SMPTE170M;
}

static int g_fmt(struct file *file, void *priv, struct v4l2_format *format)
{
	tell(queue_of(session_of(file), format->type), format);
	return 0;
}

static int try_fmt(struct file *file, void *priv, struct v4l2_format *format)
{
	struct queue q = fit(format);

	tell(&q, format);
	return 0;
}

static int s_fmt(struct file *file, void *priv, struct v4l2_format *format)
{
	struct session *s = session_of(file);

	if (vb2_is_busy(v4l2_m2m_get_vq(s->fh.m2m_ctx, format->type)))
		return -EBUSY;
	*queue_of(s, format->type) = fit(format);
	if (V4L2_TYPE_IS_OUTPUT(format->type)) {
		s->crop = (struct v4l2_rect){ 0, 0, s->raw.width, s->raw.height };
		s->coded.width = s->raw.width;
		s->coded.height = s->raw.height;
	}
	tell(queue_of(s, format->type), format);
	return 0;
}

static int g_selection(struct file *file, void *priv, struct v4l2_selection *sel)
{
	struct session *s = session_of(file);

	if (sel->type != V4L2_BUF_TYPE_VIDEO_OUTPUT)
		return -EINVAL;
	switch (sel->target) {
	case V4L2_SEL_TGT_CROP:
		sel->r = s->crop;
		return 0;
	case V4L2_SEL_TGT_CROP_DEFAULT:
	case V4L2_SEL_TGT_CROP_BOUNDS:
		sel->r = (struct v4l2_rect){ 0, 0, s->raw.width, s->raw.height };
		return 0;
	default:
		return -EINVAL;
	}
}

static int s_selection(struct file *file, void *priv, struct v4l2_selection *sel)
{
	struct session *s = session_of(file);

	if (sel->type != V4L2_BUF_TYPE_VIDEO_OUTPUT || sel->target != V4L2_SEL_TGT_CROP)
		return -EINVAL;
	sel->r = (struct v4l2_rect){ 0, 0, clamp(sel->r.width & ~1u, SIZE_MIN, s->raw.width),
				     clamp(sel->r.height & ~1u, SIZE_MIN, s->raw.height) };
	s->crop = sel->r;
	s->coded.width = sel->r.width;
	s->coded.height = sel->r.height;
	return 0;
}

static int g_parm(struct file *file, void *priv, struct v4l2_streamparm *parm)
{
	if (!V4L2_TYPE_IS_OUTPUT(parm->type))
		return -EINVAL;
	parm->parm.output.capability = V4L2_CAP_TIMEPERFRAME;
	parm->parm.output.timeperframe = session_of(file)->frame_time;
	return 0;
}

static int s_parm(struct file *file, void *priv, struct v4l2_streamparm *parm)
{
	struct v4l2_fract *wanted = &parm->parm.output.timeperframe;

	if (!V4L2_TYPE_IS_OUTPUT(parm->type))
		return -EINVAL;
	if (wanted->numerator && wanted->denominator)
		session_of(file)->frame_time = *wanted;
	return g_parm(file, priv, parm);
}

static int encoder_cmd(struct file *file, void *priv, struct v4l2_encoder_cmd *cmd)
{
	struct session *s = session_of(file);
	struct v4l2_m2m_ctx *m2m = s->fh.m2m_ctx;
	int ret = v4l2_m2m_ioctl_try_encoder_cmd(file, priv, cmd);

	if (ret || !vb2_is_streaming(&m2m->cap_q_ctx.q) || !vb2_is_streaming(&m2m->out_q_ctx.q))
		return ret;
	ret = v4l2_m2m_ioctl_encoder_cmd(file, priv, cmd);
	if (ret || !v4l2_m2m_has_stopped(m2m))
		return ret;
	if (cmd->cmd == V4L2_ENC_CMD_STOP)
		v4l2_event_queue_fh(&s->fh, &end_of_stream);
	else
		vb2_clear_last_buffer_dequeued(&m2m->cap_q_ctx.q);
	return 0;
}

static int subscribe_event(struct v4l2_fh *fh, const struct v4l2_event_subscription *sub)
{
	return sub->type == V4L2_EVENT_EOS ? v4l2_event_subscribe(fh, sub, 0, NULL) : v4l2_ctrl_subscribe_event(fh, sub);
}

static const struct v4l2_ioctl_ops ioctl_ops = {
	.vidioc_querycap = querycap,
	.vidioc_enum_fmt_vid_cap = enum_fmt,
	.vidioc_enum_fmt_vid_out = enum_fmt,
	.vidioc_enum_framesizes = enum_framesizes,
	.vidioc_g_fmt_vid_cap_mplane = g_fmt,
	.vidioc_g_fmt_vid_out_mplane = g_fmt,
	.vidioc_try_fmt_vid_cap_mplane = try_fmt,
	.vidioc_try_fmt_vid_out_mplane = try_fmt,
	.vidioc_s_fmt_vid_cap_mplane = s_fmt,
	.vidioc_s_fmt_vid_out_mplane = s_fmt,
	.vidioc_g_selection = g_selection,
	.vidioc_s_selection = s_selection,
	.vidioc_g_parm = g_parm,
	.vidioc_s_parm = s_parm,
	.vidioc_reqbufs = v4l2_m2m_ioctl_reqbufs,
	.vidioc_create_bufs = v4l2_m2m_ioctl_create_bufs,
	.vidioc_prepare_buf = v4l2_m2m_ioctl_prepare_buf,
	.vidioc_querybuf = v4l2_m2m_ioctl_querybuf,
	.vidioc_qbuf = v4l2_m2m_ioctl_qbuf,
	.vidioc_dqbuf = v4l2_m2m_ioctl_dqbuf,
	.vidioc_expbuf = v4l2_m2m_ioctl_expbuf,
	.vidioc_streamon = v4l2_m2m_ioctl_streamon,
	.vidioc_streamoff = v4l2_m2m_ioctl_streamoff,
	.vidioc_encoder_cmd = encoder_cmd,
	.vidioc_try_encoder_cmd = v4l2_m2m_ioctl_try_encoder_cmd,
	.vidioc_subscribe_event = subscribe_event,
	.vidioc_unsubscribe_event = v4l2_event_unsubscribe,
};

/* -- controls -- */

static u8 profile_idc(s32 profile)
{
	switch (profile) {
	case V4L2_MPEG_VIDEO_H264_PROFILE_HIGH:
		return 100;
	case V4L2_MPEG_VIDEO_H264_PROFILE_MAIN:
		return 77;
	default:
		return 66;
	}
}

static const u8 level_idc[] = { 10, 9, 11, 12, 13, 20, 21, 22, 30, 31, 32, 40, 41, 42 };	/* by V4L2_MPEG_VIDEO_H264_LEVEL_* */

static int s_ctrl(struct v4l2_ctrl *ctrl)
{
	struct session *s = container_of(ctrl->handler, struct session, controls);

	switch (ctrl->id) {
	case V4L2_CID_MPEG_VIDEO_BITRATE:
		s->bitrate = ctrl->val;
		break;
	case V4L2_CID_MPEG_VIDEO_H264_I_PERIOD:
		s->period = ctrl->val;
		break;
	case V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER:
		s->repeat_headers = ctrl->val;
		break;
	case V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME:
		s->key_wanted = true;
		break;
	case V4L2_CID_MPEG_VIDEO_H264_PROFILE:
		s->mosaic.profile_idc = profile_idc(ctrl->val);
		break;
	case V4L2_CID_MPEG_VIDEO_H264_LEVEL:
		s->mosaic.level_idc = level_idc[ctrl->val];
		break;
	}
	return 0;
}

static const struct v4l2_ctrl_ops ctrl_ops = { .s_ctrl = s_ctrl };

static int add_controls(struct session *s)
{
	struct v4l2_ctrl_handler *h = &s->controls;
	u64 profiles = BIT(V4L2_MPEG_VIDEO_H264_PROFILE_BASELINE) | BIT(V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE) |
		       BIT(V4L2_MPEG_VIDEO_H264_PROFILE_MAIN) | BIT(V4L2_MPEG_VIDEO_H264_PROFILE_HIGH);

	v4l2_ctrl_handler_init(h, 10);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_BITRATE_MODE, V4L2_MPEG_VIDEO_BITRATE_MODE_CBR, 0,
			       V4L2_MPEG_VIDEO_BITRATE_MODE_VBR);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_BITRATE, 25000, 25000000, 25000, 10000000);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_HEADER_MODE,
			       V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME, 0,
			       V4L2_MPEG_VIDEO_HEADER_MODE_JOINED_WITH_1ST_FRAME);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_REPEAT_SEQ_HEADER, 0, 1, 1, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 0, 0, 0, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_MIN_QP, 0, 51, 1, 20);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_MAX_QP, 0, 51, 1, 51);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_I_PERIOD, 0, 0x7fffffff, 1, 60);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_LEVEL, V4L2_MPEG_VIDEO_H264_LEVEL_4_2,
			       BIT(V4L2_MPEG_VIDEO_H264_LEVEL_1B), V4L2_MPEG_VIDEO_H264_LEVEL_4_0);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_PROFILE, V4L2_MPEG_VIDEO_H264_PROFILE_HIGH, ~profiles,
			       V4L2_MPEG_VIDEO_H264_PROFILE_HIGH);
	return h->error ?: v4l2_ctrl_handler_setup(h);
}

/* -- handles -- */

static void free_session(struct session *s)
{
	mosaic_end(&s->mosaic);
	v4l2_fh_exit(&s->fh);
	v4l2_ctrl_handler_free(&s->controls);
	kfree(s);
}

static int open_session(struct file *file)
{
	struct encoder *encoder = video_drvdata(file);
	struct session *s;
	int ret;

	if (live >= max_ctx)
		return -EBUSY;
	s = kzalloc(sizeof(*s), GFP_KERNEL);
	if (!s)
		return -ENOMEM;
	s->encoder = encoder;
	INIT_DELAYED_WORK(&s->work, run_job);
	s->frame_time = (struct v4l2_fract){ 1, 30 };
	s->crop = (struct v4l2_rect){ 0, 0, 640, 480 };
	s->raw = (struct queue){ V4L2_PIX_FMT_YUV420, 640, 480, 640, 640 * 480 * 3 / 2, 0 };
	s->coded = (struct queue){ V4L2_PIX_FMT_H264, 640, 480, 0, CODED_MIN, 0 };
	v4l2_fh_init(&s->fh, &encoder->node);
	ret = add_controls(s);
	s->key_wanted = false;	/* v4l2_ctrl_handler_setup pressed the button */
	s->fh.ctrl_handler = &s->controls;
	if (!ret) {
		s->fh.m2m_ctx = v4l2_m2m_ctx_init(encoder->m2m, s, init_queues);
		ret = PTR_ERR_OR_ZERO(s->fh.m2m_ctx);
	}
	if (ret) {
		free_session(s);
		return ret;
	}
	file->private_data = &s->fh;
	v4l2_fh_add(&s->fh);
	live++;
	return 0;
}

static int release_session(struct file *file)
{
	struct session *s = session_of(file);
	bool stalled = stall;

	stall = false;	/* closing a codec that hangs blocks for ever; this one has to end */
	v4l2_m2m_ctx_release(s->fh.m2m_ctx);
	cancel_delayed_work_sync(&s->work);
	stall = stalled;
	v4l2_fh_del(&s->fh);
	free_session(s);
	live--;
	return 0;
}

static const struct v4l2_file_operations file_ops = {
	.owner = THIS_MODULE,
	.open = open_session,
	.release = release_session,
	.poll = v4l2_m2m_fop_poll,
	.unlocked_ioctl = video_ioctl2,
	.mmap = v4l2_m2m_fop_mmap,
};

/* -- plugging -- */

static void free_encoder(struct v4l2_device *v4l2)
{
	struct encoder *encoder = container_of(v4l2, struct encoder, v4l2);

	v4l2_m2m_release(encoder->m2m);
	v4l2_device_unregister(&encoder->v4l2);
	mutex_destroy(&encoder->lock);
	kfree(encoder);
}

static int plug(void)
{
	struct encoder *encoder = kzalloc(sizeof(*encoder), GFP_KERNEL);
	struct video_device *node;
	int ret;

	if (!encoder)
		return -ENOMEM;
	mutex_init(&encoder->lock);
	strscpy(encoder->v4l2.name, "bcm2835-codec", sizeof(encoder->v4l2.name));	/* else taken from a driver there is not */
	ret = v4l2_device_register(&platform->dev, &encoder->v4l2);
	if (ret) {
		kfree(encoder);
		return ret;
	}
	encoder->v4l2.release = free_encoder;
	encoder->m2m = v4l2_m2m_init(&m2m_ops);
	if (IS_ERR(encoder->m2m)) {
		ret = PTR_ERR(encoder->m2m);
		v4l2_device_unregister(&encoder->v4l2);
		kfree(encoder);
		return ret;
	}
	node = &encoder->node;
	strscpy(node->name, "bcm2835-codec-encode", sizeof(node->name));
	node->fops = &file_ops;
	node->ioctl_ops = &ioctl_ops;
	node->vfl_dir = VFL_DIR_M2M;
	node->release = video_device_release_empty;
	node->lock = &encoder->lock;
	node->v4l2_dev = &encoder->v4l2;
	node->device_caps = V4L2_CAP_VIDEO_M2M_MPLANE | V4L2_CAP_STREAMING;
	video_set_drvdata(node, encoder);
	ret = video_register_device(node, VFL_TYPE_VIDEO, nr);
	if (ret) {
		v4l2_device_put(&encoder->v4l2);
		return ret;
	}
	plugged = encoder;
	return 0;
}

static void unplug(void)
{
	struct encoder *encoder = plugged;
	struct v4l2_fh *fh;
	unsigned long flags;

	plugged = NULL;
	video_unregister_device(&encoder->node);
	/* who sleeps in poll() or DQBUF on it has to wake up and find it gone */
	spin_lock_irqsave(&encoder->node.fh_lock, flags);
	list_for_each_entry(fh, &encoder->node.fh_list, list) {
		wake_up_all(&fh->wait);
		vb2_queue_error(&fh->m2m_ctx->cap_q_ctx.q);
		vb2_queue_error(&fh->m2m_ctx->out_q_ctx.q);
	}
	spin_unlock_irqrestore(&encoder->node.fh_lock, flags);
	v4l2_device_disconnect(&encoder->v4l2);
	v4l2_device_put(&encoder->v4l2);
}

static int set_unplugged(const char *value, const struct kernel_param *param)
{
	bool wanted;
	int ret = kstrtobool(value, &wanted);

	if (ret)
		return ret;
	mutex_lock(&plug_lock);
	if (!platform)	/* on the command line: it starts unplugged */
		*(bool *)param->arg = wanted;
	else if (wanted && plugged)
		unplug();
	else if (!wanted && !plugged)
		ret = plug();
	if (!ret)
		*(bool *)param->arg = wanted;
	mutex_unlock(&plug_lock);
	return ret;
}

static bool unplugged;
static const struct kernel_param_ops unplug_ops = { .set = set_unplugged, .get = param_get_bool };
module_param_cb(unplug, &unplug_ops, &unplugged, 0644);
MODULE_PARM_DESC(unplug, "the node is gone");

static void remove_encoder(void)
{
	mutex_lock(&plug_lock);
	if (plugged)
		unplug();
	mutex_unlock(&plug_lock);
	platform_device_unregister(platform);
}

static int __init hilenc_init(void)
{
	int ret;

	mutex_lock(&plug_lock);
	platform = platform_device_register_simple("bcm2835-codec", -1, NULL, 0);
	if (IS_ERR(platform)) {
		ret = PTR_ERR(platform);
	} else {
		ret = unplugged ? 0 : plug();
		if (ret)
			platform_device_unregister(platform);
	}
	mutex_unlock(&plug_lock);
	if (ret)
		return ret;
	ret = camera_init();
	if (ret)
		remove_encoder();
	return ret;
}

static void __exit hilenc_exit(void)
{
	camera_exit();
	remove_encoder();
}

module_init(hilenc_init);
module_exit(hilenc_exit);
MODULE_DESCRIPTION("H.264 encoder without hardware, with the surface of bcm2835-codec");
MODULE_LICENSE("GPL");
