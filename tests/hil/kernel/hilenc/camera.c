// SPDX-License-Identifier: GPL-2.0
/*
 * A USB camera without hardware that delivers H.264 by itself, as uvcvideo shows one: H264 beside YUYV at a capture node, and
 * the encoder's settings by the extension unit of the USB Video Class's H.264 payload (UVCIOC_CTRL_QUERY, found in the file
 * `descriptors` of the USB device), by V4L2 controls, or by nothing. Its picture is a bright bar that wanders over grey.
 */
#include <linux/device.h>
#include <linux/math64.h>
#include <linux/module.h>
#include <linux/platform_device.h>
#include <linux/usb/video.h>
#include <linux/uvcvideo.h>
#include <linux/vmalloc.h>
#include <linux/workqueue.h>
#include <media/v4l2-ctrls.h>
#include <media/v4l2-device.h>
#include <media/v4l2-event.h>
#include <media/v4l2-ioctl.h>
#include <media/videobuf2-v4l2.h>
#include <media/videobuf2-vmalloc.h>

#include "camera.h"
#include "mosaic.h"

#define CODED_SIZE	(512u << 10)
#define BAR		64u
#define XU_UNIT		12
#define XU_PROBE	1
#define XU_COMMIT	2
#define XU_PICTURE_TYPE	9
#define XU_BITRATE	14
#define XU_CONFIG_SIZE	46
#define XU_PROFILE_AT	20

enum { STEER_NOT, STEER_CONTROLS, STEER_UNIT };

static uint camera_steer = STEER_UNIT, camera_profile = 100, camera_period = 60;
static bool camera_raw = true, camera_h264 = true, camera_headers = true, camera_b, camera_stubborn, camera_deaf;
module_param(camera_steer, uint, 0644);
MODULE_PARM_DESC(camera_steer, "0: not, 1: V4L2 controls, 2: UVC extension unit; read when it is plugged in");
module_param(camera_profile, uint, 0644);
MODULE_PARM_DESC(camera_profile, "profile_idc until another is asked: 66, 77 or 100");
module_param(camera_stubborn, bool, 0644);
MODULE_PARM_DESC(camera_stubborn, "accepts another profile, and keeps its own");
module_param(camera_deaf, bool, 0644);
MODULE_PARM_DESC(camera_deaf, "accepts requests for key pictures and bit rates, and does nothing");
module_param(camera_period, uint, 0644);
MODULE_PARM_DESC(camera_period, "pictures from key picture to key picture; 0: those asked for alone");
module_param(camera_headers, bool, 0644);
MODULE_PARM_DESC(camera_headers, "SPS and PPS before every key picture, not the first alone");
module_param(camera_b, bool, 0644);
MODULE_PARM_DESC(camera_b, "pictures between key pictures are headed as B");
module_param(camera_raw, bool, 0644);
MODULE_PARM_DESC(camera_raw, "YUYV is offered");
module_param(camera_h264, bool, 0644);
MODULE_PARM_DESC(camera_h264, "H264 is offered; without both it offers grey of 16 bits alone");

static uint camera_bitrate, camera_asked;
static bool camera_passing;
module_param(camera_bitrate, uint, 0444);
MODULE_PARM_DESC(camera_bitrate, "bits per second that it makes");
module_param(camera_asked, uint, 0444);
MODULE_PARM_DESC(camera_asked, "key pictures that were asked for");
module_param(camera_passing, bool, 0444);
MODULE_PARM_DESC(camera_passing, "it streams, in H264");

struct buffer {
	struct vb2_v4l2_buffer vb;
	struct list_head list;
};

/* One plugging: lives until the last handle is closed. */
struct camera {
	struct v4l2_device v4l2;
	struct video_device node;
	struct v4l2_ctrl_handler controls;
	struct vb2_queue queue;
	struct mutex lock;
	spinlock_t list_lock;
	struct list_head free;
	struct delayed_work work;
	struct mosaic mosaic;
	u8 *yuv;
	u32 pixelformat, width, height, fps, sequence, since_key, profile;
	u64 next_ns;
	bool key_wanted, first;
	u8 config[XU_CONFIG_SIZE];
};

static struct platform_device *usb, *interface;
static struct camera *plugged;
static DEFINE_MUTEX(plug_lock);

static const struct { u32 width, height; } sizes[] = { { 1280, 720 }, { 640, 360 } };
static const u32 rates[] = { 30, 15 };

static u32 line_of(const struct camera *c)
{
	return c->pixelformat == V4L2_PIX_FMT_H264 ? 0 : c->width * 2;
}

static u32 size_of(const struct camera *c)
{
	return c->pixelformat == V4L2_PIX_FMT_H264 ? CODED_SIZE : c->width * 2 * c->height;
}

static u32 nth_format(u32 index)
{
	u32 offered[2], n = 0;

	if (camera_h264)
		offered[n++] = V4L2_PIX_FMT_H264;
	if (camera_raw)
		offered[n++] = V4L2_PIX_FMT_YUYV;
	if (!n)
		offered[n++] = V4L2_PIX_FMT_Y16;
	return index < n ? offered[index] : 0;
}

/* -- pictures -- */

static void draw(struct camera *c)
{
	u32 y, at = c->sequence * 8 % c->width & ~15u, luma = c->width * c->height;
	u32 bar = min(BAR, c->width - at);

	memset(c->yuv, 90, luma);
	for (y = 0; y < c->height; y++)
		memset(c->yuv + y * c->width + at, 200, bar);
	memset(c->yuv + luma, 110, luma / 4);
	memset(c->yuv + luma + luma / 4, 150, luma / 4);
}

static void want_key(struct camera *c)
{
	camera_asked++;
	c->key_wanted = !camera_deaf;
}

static void want_bitrate(u32 bits_per_second)
{
	if (!camera_deaf)
		camera_bitrate = bits_per_second;
}

/* Returned, and no local variable that is initialised so: gcc 12 clears the padding of that at the wrong place. */
static struct mosaic_source source_of(const struct camera *c)
{
	u32 w = c->width, luma = w * c->height;

	return (struct mosaic_source){
		{ { c->yuv, w, 1, 0, 0 }, { c->yuv + luma, w / 2, 1, 1, 1 }, { c->yuv + luma + luma / 4, w / 2, 1, 1, 1 } }, false };
}

static u32 encode(struct camera *c, u8 *coded, bool *key)
{
	struct mosaic_source src = source_of(c);
	int used;

	*key = c->first || c->key_wanted || (camera_period && c->since_key + 1 >= camera_period);
	c->since_key = *key ? 0 : c->since_key + 1;
	used = mosaic_encode(&c->mosaic, &src, *key, c->first || camera_headers, false, coded, CODED_SIZE);
	c->first = false;
	c->key_wanted = false;
	if (used < 0)
		return 0;
	if (camera_b && !*key)
		coded[5] |= 0x04;	/* slice_type 5, all P, becomes 6, all B: one bit apart */
	return mosaic_fill(coded, used, min_t(u32, CODED_SIZE, camera_bitrate / 8 / c->fps));
}

static u32 fill_yuyv(const struct camera *c, u8 *raw)
{
	u32 x, y;

	if (c->pixelformat != V4L2_PIX_FMT_YUYV)
		return size_of(c);
	for (y = 0; y < c->height; y++)
		for (x = 0; x < c->width; x++, raw += 2) {
			raw[0] = c->yuv[y * c->width + x];
			raw[1] = x & 1 ? 150 : 110;
		}
	return size_of(c);
}

static void take_picture(struct work_struct *work)
{
	struct camera *c = container_of(to_delayed_work(work), struct camera, work);
	struct buffer *b;
	bool key = true;
	u32 used;
	u64 now;

	spin_lock(&c->list_lock);
	b = list_first_entry_or_null(&c->free, struct buffer, list);
	if (b)
		list_del(&b->list);
	spin_unlock(&c->list_lock);
	if (b) {	/* else nobody waits for it */
		u8 *at = vb2_plane_vaddr(&b->vb.vb2_buf, 0);

		b->vb.vb2_buf.timestamp = ktime_get_ns();
		draw(c);
		used = c->pixelformat == V4L2_PIX_FMT_H264 ? encode(c, at, &key) : fill_yuyv(c, at);
		vb2_set_plane_payload(&b->vb.vb2_buf, 0, used);
		b->vb.flags &= ~(V4L2_BUF_FLAG_KEYFRAME | V4L2_BUF_FLAG_PFRAME);	/* uvcvideo tells neither */
		b->vb.field = V4L2_FIELD_NONE;
		b->vb.sequence = c->sequence;
		vb2_buffer_done(&b->vb.vb2_buf, used ? VB2_BUF_STATE_DONE : VB2_BUF_STATE_ERROR);
	}
	c->sequence++;
	now = ktime_get_ns();
	c->next_ns = max(now, c->next_ns + NSEC_PER_SEC / c->fps);
	schedule_delayed_work(&c->work, nsecs_to_jiffies(c->next_ns - now));
}

/* -- buffers -- */

static int queue_setup(struct vb2_queue *q, unsigned int *buffers, unsigned int *planes, unsigned int bytes[],
		       struct device *alloc[])
{
	if (*planes)
		return bytes[0] < size_of(vb2_get_drv_priv(q)) ? -EINVAL : 0;
	*planes = 1;
	bytes[0] = size_of(vb2_get_drv_priv(q));
	return 0;
}

static void buf_queue(struct vb2_buffer *vb)
{
	struct camera *c = vb2_get_drv_priv(vb->vb2_queue);
	struct buffer *b = container_of(to_vb2_v4l2_buffer(vb), struct buffer, vb);

	spin_lock(&c->list_lock);
	list_add_tail(&b->list, &c->free);
	spin_unlock(&c->list_lock);
}

static void give_back(struct camera *c, enum vb2_buffer_state state)
{
	struct buffer *b, *next;

	spin_lock(&c->list_lock);
	list_for_each_entry_safe(b, next, &c->free, list) {
		list_del(&b->list);
		vb2_buffer_done(&b->vb.vb2_buf, state);
	}
	spin_unlock(&c->list_lock);
}

static int start_streaming(struct vb2_queue *q, unsigned int count)
{
	struct camera *c = vb2_get_drv_priv(q);
	int ret = 0;

	c->mosaic.width = c->width;
	c->mosaic.height = c->height;
	c->mosaic.tick_num = 1;
	c->mosaic.tick_den = c->fps;
	c->mosaic.profile_idc = c->profile;
	c->mosaic.level_idc = 31;
	c->first = true;
	c->sequence = 0;
	c->next_ns = ktime_get_ns();
	c->yuv = vmalloc(c->width * c->height * 3 / 2);
	if (!c->yuv || mosaic_start(&c->mosaic))
		ret = -ENOMEM;
	if (ret) {
		vfree(c->yuv);
		c->yuv = NULL;
		give_back(c, VB2_BUF_STATE_QUEUED);
		return ret;
	}
	camera_passing = c->pixelformat == V4L2_PIX_FMT_H264;
	schedule_delayed_work(&c->work, 0);
	return 0;
}

static void stop_streaming(struct vb2_queue *q)
{
	struct camera *c = vb2_get_drv_priv(q);

	cancel_delayed_work_sync(&c->work);
	give_back(c, VB2_BUF_STATE_ERROR);
	mosaic_end(&c->mosaic);
	vfree(c->yuv);
	c->yuv = NULL;
	camera_passing = false;
}

static const struct vb2_ops buffer_ops = {
	.queue_setup = queue_setup,
	.buf_queue = buf_queue,
	.start_streaming = start_streaming,
	.stop_streaming = stop_streaming,
	.wait_prepare = vb2_ops_wait_prepare,
	.wait_finish = vb2_ops_wait_finish,
};

/* -- ioctls -- */

static int querycap(struct file *file, void *priv, struct v4l2_capability *cap)
{
	strscpy(cap->driver, "uvcvideo", sizeof(cap->driver));
	strscpy(cap->card, "H.264 camera", sizeof(cap->card));
	strscpy(cap->bus_info, "usb-hil-1", sizeof(cap->bus_info));
	return 0;
}

static int enum_fmt(struct file *file, void *priv, struct v4l2_fmtdesc *desc)
{
	desc->pixelformat = nth_format(desc->index);
	return desc->pixelformat ? 0 : -EINVAL;
}

static int enum_framesizes(struct file *file, void *priv, struct v4l2_frmsizeenum *size)
{
	if (size->index >= ARRAY_SIZE(sizes))
		return -EINVAL;
	size->type = V4L2_FRMSIZE_TYPE_DISCRETE;
	size->discrete.width = sizes[size->index].width;
	size->discrete.height = sizes[size->index].height;
	return 0;
}

static int enum_frameintervals(struct file *file, void *priv, struct v4l2_frmivalenum *interval)
{
	if (interval->index >= ARRAY_SIZE(rates))
		return -EINVAL;
	interval->type = V4L2_FRMIVAL_TYPE_DISCRETE;
	interval->discrete = (struct v4l2_fract){ 1, rates[interval->index] };
	return 0;
}

static void tell(const struct camera *c, struct v4l2_pix_format *pix)
{
	pix->width = c->width;
	pix->height = c->height;
	pix->pixelformat = c->pixelformat;
	pix->field = V4L2_FIELD_NONE;
	pix->bytesperline = line_of(c);
	pix->sizeimage = size_of(c);
	pix->colorspace = V4L2_COLORSPACE_SRGB;
}

static int g_fmt(struct file *file, void *priv, struct v4l2_format *format)
{
	tell(video_drvdata(file), &format->fmt.pix);
	return 0;
}

static void fit(struct camera *c, const struct v4l2_pix_format *pix)
{
	bool small = pix->width <= sizes[1].width;
	u32 i;

	c->width = sizes[small].width;
	c->height = sizes[small].height;
	c->pixelformat = nth_format(0);
	for (i = 0; nth_format(i); i++)
		if (nth_format(i) == pix->pixelformat)
			c->pixelformat = pix->pixelformat;
}

static int try_fmt(struct file *file, void *priv, struct v4l2_format *format)
{
	struct camera *c = video_drvdata(file);
	u32 pixelformat = c->pixelformat, width = c->width, height = c->height;

	fit(c, &format->fmt.pix);
	tell(c, &format->fmt.pix);
	c->pixelformat = pixelformat;
	c->width = width;
	c->height = height;
	return 0;
}

static int s_fmt(struct file *file, void *priv, struct v4l2_format *format)
{
	struct camera *c = video_drvdata(file);

	if (vb2_is_busy(&c->queue))
		return -EBUSY;
	fit(c, &format->fmt.pix);
	tell(c, &format->fmt.pix);
	return 0;
}

static int g_parm(struct file *file, void *priv, struct v4l2_streamparm *parm)
{
	struct camera *c = video_drvdata(file);

	if (parm->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
		return -EINVAL;
	parm->parm.capture.capability = V4L2_CAP_TIMEPERFRAME;
	parm->parm.capture.timeperframe = (struct v4l2_fract){ 1, c->fps };
	parm->parm.capture.readbuffers = 2;
	return 0;
}

static int s_parm(struct file *file, void *priv, struct v4l2_streamparm *parm)
{
	struct camera *c = video_drvdata(file);
	struct v4l2_fract *wanted = &parm->parm.capture.timeperframe;

	if (parm->type != V4L2_BUF_TYPE_VIDEO_CAPTURE)
		return -EINVAL;
	if (wanted->numerator && wanted->denominator)
		c->fps = wanted->denominator / wanted->numerator > 22 ? rates[0] : rates[1];
	return g_parm(file, priv, parm);
}

static int enum_input(struct file *file, void *priv, struct v4l2_input *input)
{
	if (input->index)
		return -EINVAL;
	input->type = V4L2_INPUT_TYPE_CAMERA;
	strscpy(input->name, "Camera 1", sizeof(input->name));
	return 0;
}

static int g_input(struct file *file, void *priv, unsigned int *input)
{
	*input = 0;
	return 0;
}

static int s_input(struct file *file, void *priv, unsigned int input)
{
	return input ? -EINVAL : 0;
}

/* What a unit holds under a selector; 0: it has no such. */
static u16 unit_size(u8 selector)
{
	switch (selector) {
	case XU_PROBE:
	case XU_COMMIT:
		return XU_CONFIG_SIZE;
	case XU_PICTURE_TYPE:
		return 4;
	case XU_BITRATE:
		return 10;
	default:
		return 0;
	}
}

static void unit_set(struct camera *c, u8 selector, const u8 *data)
{
	switch (selector) {
	case XU_PROBE:
		memcpy(c->config, data, XU_CONFIG_SIZE);
		break;
	case XU_COMMIT:
		if (!camera_stubborn)
			c->profile = data[XU_PROFILE_AT + 1];
		break;
	case XU_PICTURE_TYPE:
		if (data[2] == 1 || data[2] == 2)
			want_key(c);
		break;
	case XU_BITRATE:
		want_bitrate(data[6] | data[7] << 8 | data[8] << 16 | (u32)data[9] << 24);	/* the average */
		break;
	}
}

static long query_unit(struct file *file, void *fh, bool valid_prio, unsigned int cmd, void *arg)
{
	struct camera *c = video_drvdata(file);
	struct uvc_xu_control_query *query = arg;
	u8 data[XU_CONFIG_SIZE] = { 0 };
	u16 size;

	if (cmd != UVCIOC_CTRL_QUERY)
		return -ENOTTY;
	size = unit_size(query->selector);
	if (camera_steer != STEER_UNIT || query->unit != XU_UNIT || !size)
		return -ENOENT;
	if (query->query == UVC_GET_LEN) {
		data[0] = size;
		size = 2;
	}
	if (query->size != size)
		return -ENOBUFS;
	switch (query->query) {
	case UVC_SET_CUR:
		if (copy_from_user(data, query->data, size))
			return -EFAULT;
		unit_set(c, query->selector, data);
		return 0;
	case UVC_GET_CUR:
	case UVC_GET_DEF:
		if (query->selector == XU_PROBE || query->selector == XU_COMMIT)
			memcpy(data, c->config, size);
		break;
	case UVC_GET_LEN:
		break;
	default:
		return -EBADRQC;
	}
	return copy_to_user(query->data, data, size) ? -EFAULT : 0;
}

static const struct v4l2_ioctl_ops ioctl_ops = {
	.vidioc_querycap = querycap,
	.vidioc_enum_fmt_vid_cap = enum_fmt,
	.vidioc_enum_framesizes = enum_framesizes,
	.vidioc_enum_frameintervals = enum_frameintervals,
	.vidioc_g_fmt_vid_cap = g_fmt,
	.vidioc_try_fmt_vid_cap = try_fmt,
	.vidioc_s_fmt_vid_cap = s_fmt,
	.vidioc_g_parm = g_parm,
	.vidioc_s_parm = s_parm,
	.vidioc_enum_input = enum_input,
	.vidioc_g_input = g_input,
	.vidioc_s_input = s_input,
	.vidioc_reqbufs = vb2_ioctl_reqbufs,
	.vidioc_querybuf = vb2_ioctl_querybuf,
	.vidioc_qbuf = vb2_ioctl_qbuf,
	.vidioc_dqbuf = vb2_ioctl_dqbuf,
	.vidioc_expbuf = vb2_ioctl_expbuf,
	.vidioc_streamon = vb2_ioctl_streamon,
	.vidioc_streamoff = vb2_ioctl_streamoff,
	.vidioc_subscribe_event = v4l2_ctrl_subscribe_event,
	.vidioc_unsubscribe_event = v4l2_event_unsubscribe,
	.vidioc_default = query_unit,
};

static const struct v4l2_file_operations file_ops = {
	.owner = THIS_MODULE,
	.open = v4l2_fh_open,
	.release = vb2_fop_release,
	.poll = vb2_fop_poll,
	.unlocked_ioctl = video_ioctl2,
	.mmap = vb2_fop_mmap,
};

/* -- controls -- */

static int s_ctrl(struct v4l2_ctrl *ctrl)
{
	struct camera *c = container_of(ctrl->handler, struct camera, controls);

	switch (ctrl->id) {
	case V4L2_CID_MPEG_VIDEO_BITRATE:
		want_bitrate(ctrl->val);
		break;
	case V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME:
		want_key(c);
		break;
	case V4L2_CID_MPEG_VIDEO_H264_PROFILE:
		if (!camera_stubborn)
			c->profile = ctrl->val == V4L2_MPEG_VIDEO_H264_PROFILE_HIGH ? 100 : 66;
		break;
	}
	return 0;	/* the lens and the sensor have nothing to do: their controls keep what was asked */
}

static const struct v4l2_ctrl_ops ctrl_ops = { .s_ctrl = s_ctrl };

static int add_controls(struct camera *c)
{
	struct v4l2_ctrl_handler *h = &c->controls;

	v4l2_ctrl_handler_init(h, 8);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_FOCUS_AUTO, 0, 1, 1, 0);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_FOCUS_ABSOLUTE, 0, 250, 5, 0);
	v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_EXPOSURE_AUTO, V4L2_EXPOSURE_APERTURE_PRIORITY,
			       BIT(V4L2_EXPOSURE_AUTO) | BIT(V4L2_EXPOSURE_SHUTTER_PRIORITY), V4L2_EXPOSURE_APERTURE_PRIORITY);
	v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_EXPOSURE_ABSOLUTE, 3, 2047, 1, 250);
	if (camera_steer == STEER_CONTROLS) {
		v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_BITRATE, 25000, 14000000, 1, 3000000);
		v4l2_ctrl_new_std(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME, 0, 0, 0, 0);
		v4l2_ctrl_new_std_menu(h, &ctrl_ops, V4L2_CID_MPEG_VIDEO_H264_PROFILE, V4L2_MPEG_VIDEO_H264_PROFILE_HIGH,
				       ~(BIT(V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE) |
					 BIT(V4L2_MPEG_VIDEO_H264_PROFILE_HIGH)), V4L2_MPEG_VIDEO_H264_PROFILE_HIGH);
	}
	return h->error;
}

/* -- plugging -- */

/* As USB tells them: the device, a configuration, the header of the control interface, and the extension unit. */
static const u8 descriptors[] = {
	18, 1, 0x00, 0x02, 0xef, 2, 1, 64, 0x6d, 0x04, 0x2d, 0x08, 0x11, 0, 0, 2, 1, 1,
	9, 2, 64, 0, 2, 1, 0, 0x80, 250,
	9, 4, 0, 0, 1, 14, 1, 0, 0,
	13, 0x24, 1, 0x10, 0x01, 41, 0, 0x80, 0x8d, 0x5b, 0, 1, 1,
	28, 0x24, 6, XU_UNIT, 0x41, 0x76, 0x9e, 0xa2, 0x04, 0xde, 0xe3, 0x47, 0x8b, 0x2b, 0xf4, 0x34, 0x1a, 0xff, 0x00, 0x3b,
	4, 1, 3, 2, 0x03, 0x21, 0, 0,
};

static ssize_t descriptors_read(struct file *file, struct kobject *kobj, struct bin_attribute *attr, char *to, loff_t at,
				size_t count)
{
	return camera_steer == STEER_UNIT ? memory_read_from_buffer(to, count, &at, descriptors, sizeof(descriptors)) : 0;
}

static BIN_ATTR_RO(descriptors, sizeof(descriptors));

static void free_camera(struct v4l2_device *v4l2)
{
	struct camera *c = container_of(v4l2, struct camera, v4l2);

	v4l2_ctrl_handler_free(&c->controls);
	v4l2_device_unregister(&c->v4l2);
	mutex_destroy(&c->lock);
	kfree(c);
}

static int start_queue(struct camera *c)
{
	struct vb2_queue *q = &c->queue;

	q->type = V4L2_BUF_TYPE_VIDEO_CAPTURE;
	q->io_modes = VB2_MMAP | VB2_DMABUF;
	q->drv_priv = c;
	q->buf_struct_size = sizeof(struct buffer);
	q->ops = &buffer_ops;
	q->mem_ops = &vb2_vmalloc_memops;
	q->timestamp_flags = V4L2_BUF_FLAG_TIMESTAMP_MONOTONIC;
	q->lock = &c->lock;
	return vb2_queue_init(q);
}

static int plug(void)
{
	struct camera *c = kzalloc(sizeof(*c), GFP_KERNEL);
	struct video_device *node;
	int ret;

	if (!c)
		return -ENOMEM;
	mutex_init(&c->lock);
	spin_lock_init(&c->list_lock);
	INIT_LIST_HEAD(&c->free);
	INIT_DELAYED_WORK(&c->work, take_picture);
	c->width = sizes[0].width;
	c->height = sizes[0].height;
	c->fps = rates[0];
	c->pixelformat = nth_format(0);
	c->profile = camera_profile;
	camera_bitrate = 3000000;
	strscpy(c->v4l2.name, "hilcam", sizeof(c->v4l2.name));
	ret = v4l2_device_register(&interface->dev, &c->v4l2);
	if (ret) {
		kfree(c);
		return ret;
	}
	c->v4l2.release = free_camera;
	ret = start_queue(c) ?: add_controls(c);
	node = &c->node;
	strscpy(node->name, "H.264 camera", sizeof(node->name));
	node->fops = &file_ops;
	node->ioctl_ops = &ioctl_ops;
	node->release = video_device_release_empty;
	node->lock = &c->lock;
	node->queue = &c->queue;
	node->v4l2_dev = &c->v4l2;
	node->ctrl_handler = &c->controls;
	node->device_caps = V4L2_CAP_VIDEO_CAPTURE | V4L2_CAP_STREAMING;
	video_set_drvdata(node, c);
	ret = ret ?: video_register_device(node, VFL_TYPE_VIDEO, -1);
	if (ret) {
		v4l2_device_put(&c->v4l2);
		return ret;
	}
	plugged = c;
	return 0;
}

static void unplug(void)
{
	struct camera *c = plugged;

	plugged = NULL;
	vb2_video_unregister_device(&c->node);
	v4l2_device_disconnect(&c->v4l2);
	v4l2_device_put(&c->v4l2);
}

static int set_plugged(const char *value, const struct kernel_param *param)
{
	bool wanted;
	int ret = kstrtobool(value, &wanted);

	if (ret)
		return ret;
	mutex_lock(&plug_lock);
	if (interface && wanted && !plugged)
		ret = plug();
	else if (interface && !wanted && plugged)
		unplug();
	if (!ret)
		*(bool *)param->arg = wanted;
	mutex_unlock(&plug_lock);
	return ret;
}

static bool camera;
static const struct kernel_param_ops plug_ops = { .set = set_plugged, .get = param_get_bool };
module_param_cb(camera, &plug_ops, &camera, 0644);
MODULE_PARM_DESC(camera, "the camera is plugged in");

int camera_init(void)
{
	struct platform_device_info below = { .name = "hilcam:1.0", .id = PLATFORM_DEVID_NONE };
	int ret;

	mutex_lock(&plug_lock);
	usb = platform_device_register_simple("hilcam", PLATFORM_DEVID_NONE, NULL, 0);
	ret = PTR_ERR_OR_ZERO(usb);
	if (ret)
		goto done;
	below.parent = &usb->dev;
	interface = platform_device_register_full(&below);
	ret = PTR_ERR_OR_ZERO(interface) ?: device_create_bin_file(&usb->dev, &bin_attr_descriptors);
	if (!ret && camera)
		ret = plug();
	if (ret) {
		if (!IS_ERR(interface))
			platform_device_unregister(interface);
		interface = NULL;
		platform_device_unregister(usb);
	}
done:
	mutex_unlock(&plug_lock);
	return ret;
}

void camera_exit(void)
{
	mutex_lock(&plug_lock);
	if (plugged)
		unplug();
	device_remove_bin_file(&usb->dev, &bin_attr_descriptors);
	platform_device_unregister(interface);
	platform_device_unregister(usb);
	interface = NULL;
	mutex_unlock(&plug_lock);
}
