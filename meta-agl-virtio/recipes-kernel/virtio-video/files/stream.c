// SPDX-License-Identifier: GPL-2.0
/*
 * A session's stream in the device, and the formats of both sides as session and
 * device agree on them. There is a stream from the first buffers on until the
 * last are gone: whoever only asks costs the device nothing.
 */

#include "driver.h"

#define VV_DEFAULT_WIDTH	640
#define VV_DEFAULT_HEIGHT	480

/* What a program finds that has just opened the device. */
void vv_formats_reset(struct vv_session *session)
{
	struct vv_device *vv = session->vv;
	struct vv_lane *coded = &session->lanes[vv_coded_side(vv)];
	struct vv_lane *raw = &session->lanes[vv_raw_side(vv)];
	struct vv_formats *all = &vv->formats[vv_raw_side(vv)];
	u32 i;

	coded->format = &vv->formats[vv_coded_side(vv)].formats[0];
	raw->format = &all->formats[0];
	for (i = all->num; i; i--)
		if (vv_format_goes_with(vv, &all->formats[i - 1],
					coded->format))
			raw->format = &all->formats[i - 1];
	coded->pix = (struct v4l2_pix_format_mplane) {
		.width = VV_DEFAULT_WIDTH,
		.height = VV_DEFAULT_HEIGHT,
		.colorspace = V4L2_COLORSPACE_REC709,
	};
	raw->pix = coded->pix;
	vv_try_coded(coded->format, &coded->pix);
	vv_try_raw(raw->format, &raw->pix);
	raw->min_buffers = 1;
	coded->min_buffers = 1;
	session->crop = (struct v4l2_rect) {
		.width = raw->pix.width,
		.height = raw->pix.height,
	};
	session->interval = (struct v4l2_fract) { 1, 30 };
}

/* With the device's lock held: all that waits hears that it waits in vain. */
void vv_stream_lost_locked(struct vv_session *session)
{
	session->lost = true;
	vb2_queue_error(&session->lanes[VV_IN].queue);
	vb2_queue_error(&session->lanes[VV_OUT].queue);
}

void vv_stream_lost(struct vv_session *session)
{
	unsigned long flags;

	spin_lock_irqsave(&session->vv->lock, flags);
	vv_stream_lost_locked(session);
	spin_unlock_irqrestore(&session->vv->lock, flags);
}

static int vv_params_send(struct vv_session *session, enum vv_side side)
{
	struct vv_lane *lane = &session->lanes[side];
	struct v4l2_rect crop = session->crop;
	struct vv_wire_params params = {
		.format = cpu_to_le32(lane->format->pixel->wire),
		.width = cpu_to_le32(lane->pix.width),
		.height = cpu_to_le32(lane->pix.height),
		.frame_rate = cpu_to_le32(vv_frame_rate(session)),
		.num_planes = cpu_to_le32(lane->pix.num_planes),
	};
	u32 plane;

	if (lane->format->pixel->coded)
		crop = (struct v4l2_rect) {
			.width = lane->pix.width,
			.height = lane->pix.height,
		};
	params.crop.left = cpu_to_le32(crop.left);
	params.crop.top = cpu_to_le32(crop.top);
	params.crop.width = cpu_to_le32(crop.width);
	params.crop.height = cpu_to_le32(crop.height);
	for (plane = 0; plane < lane->pix.num_planes; plane++) {
		const struct v4l2_plane_pix_format *p =
			&lane->pix.plane_fmt[plane];

		params.planes[plane].size = cpu_to_le32(p->sizeimage);
		params.planes[plane].stride = cpu_to_le32(p->bytesperline);
	}
	return vv_set_params(session, side, &params);
}

/* What is seen of a picture; all of it, where the device says what cannot be. */
static void vv_crop_take(struct vv_session *session,
			 const struct v4l2_pix_format_mplane *pix,
			 const struct vv_wire_crop *wire)
{
	u32 left = le32_to_cpu(wire->left), top = le32_to_cpu(wire->top);
	u32 width = le32_to_cpu(wire->width);
	u32 height = le32_to_cpu(wire->height);

	if (!width || !height || width > pix->width || height > pix->height ||
	    left > pix->width - width || top > pix->height - height) {
		left = 0;
		top = 0;
		width = pix->width;
		height = pix->height;
	}
	session->crop = (struct v4l2_rect) { left, top, width, height };
}

static int vv_raw_take(struct vv_session *session, struct vv_lane *lane,
		       const struct vv_wire_params *params)
{
	struct v4l2_pix_format_mplane pix = lane->pix;
	const struct vv_format *format = lane->format;
	u32 plane;

	if (le32_to_cpu(params->format) != format->pixel->wire)
		return -EPROTO;
	pix.width = le32_to_cpu(params->width);
	pix.height = le32_to_cpu(params->height);
	pix.num_planes = min_t(u32, le32_to_cpu(params->num_planes),
			       VV_MAX_PLANES);
	for (plane = 0; plane < pix.num_planes; plane++) {
		pix.plane_fmt[plane].sizeimage =
			le32_to_cpu(params->planes[plane].size);
		pix.plane_fmt[plane].bytesperline =
			le32_to_cpu(params->planes[plane].stride);
	}
	if (!vv_picture_is_sound(format, &pix))
		return -EPROTO;
	lane->pix = pix;
	vv_crop_take(session, &pix, &params->crop);
	return 0;
}

static int vv_coded_take(struct vv_lane *lane,
			 const struct vv_wire_params *params)
{
	struct v4l2_pix_format_mplane pix = lane->pix;

	if (le32_to_cpu(params->format) != lane->format->pixel->wire ||
	    le32_to_cpu(params->num_planes) != 1)
		return -EPROTO;
	/* Never less than a program was promised. */
	pix.plane_fmt[0].sizeimage = max(pix.plane_fmt[0].sizeimage,
					 le32_to_cpu(params->planes[0].size));
	if (!vv_picture_is_sound(lane->format, &pix))
		return -EPROTO;
	lane->pix = pix;
	return 0;
}

/* Ask what the device has made of a side's format, and take it over. */
int vv_params_take(struct vv_session *session, enum vv_side side)
{
	struct vv_lane *lane = &session->lanes[side];
	struct vv_wire_params params;
	int err = vv_get_params(session, side, &params);

	if (err)
		return err;
	if (lane->format->pixel->coded)
		err = vv_coded_take(lane, &params);
	else
		err = vv_raw_take(session, lane, &params);
	if (err) {
		v4l2_err(&session->vv->v4l2,
			 "the device describes an impossible format\n");
		return err;
	}
	lane->min_buffers = clamp_t(u32, le32_to_cpu(params.min_buffers), 1,
				    VIDEO_MAX_FRAME);
	return 0;
}

/* Tell the device the format of a side, and hear what it makes of it. */
int vv_params_agree(struct vv_session *session, enum vv_side side)
{
	int err;

	if (!session->stream)
		return 0;
	err = vv_params_send(session, side);
	return err ?: vv_params_take(session, side);
}

static void vv_stream_forget(struct vv_session *session)
{
	struct vv_device *vv = session->vv;
	unsigned long flags;

	xa_erase(&vv->sessions, session->stream);
	/* An interrupt that has just found it there is over after this. */
	spin_lock_irqsave(&vv->lock, flags);
	session->lost = false;
	session->fed = false;
	session->draining = false;
	session->ends_to_ignore = 0;
	session->stopped = false;
	session->changing = false;
	session->held = false;
	session->last_due = false;
	spin_unlock_irqrestore(&vv->lock, flags);
	v4l2_ctrl_lock(session->min_buffers);
	session->stream = 0;
	v4l2_ctrl_unlock(session->min_buffers);
}

/* Make the device's stream, unless there is one. */
int vv_stream_open(struct vv_session *session)
{
	struct vv_device *vv = session->vv;
	u32 coded = session->lanes[vv_coded_side(vv)].format->pixel->wire;
	u32 id;
	int err;

	if (session->lost) {
		if (vb2_is_busy(&session->lanes[VV_IN].queue) ||
		    vb2_is_busy(&session->lanes[VV_OUT].queue))
			return -EIO;
		vv_stream_close(session);
	}
	if (session->stream)
		return 0;
	err = xa_alloc_cyclic(&vv->sessions, &id, session,
			      XA_LIMIT(1, S32_MAX), &vv->last_stream,
			      GFP_KERNEL);
	if (err < 0)
		return err;
	session->lanes[VV_IN].generation++;
	session->lanes[VV_OUT].generation++;
	err = vv_stream_create(vv, id, coded);
	if (err) {
		xa_erase(&vv->sessions, id);
		return err;
	}
	v4l2_ctrl_lock(session->min_buffers);
	session->stream = id;
	v4l2_ctrl_unlock(session->min_buffers);
	err = vv_params_agree(session, VV_IN);
	if (!err)
		err = vv_params_agree(session, VV_OUT);
	if (!err)
		err = vv_controls_apply(session);
	if (err)
		vv_stream_close(session);
	return err;
}

void vv_stream_close(struct vv_session *session)
{
	u32 id = session->stream;

	if (!id)
		return;
	vv_stream_forget(session);
	/* One that the device has forgotten by itself is an error, and as well. */
	vv_stream_destroy(session->vv, id);
}
