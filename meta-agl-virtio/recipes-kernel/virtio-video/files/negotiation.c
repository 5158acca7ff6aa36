// SPDX-License-Identifier: GPL-2.0
/*
 * Formats and frame intervals as programs ask for them.
 */

#include "driver.h"

static struct vv_lane *vv_raw_lane(struct vv_session *session)
{
	return &session->lanes[vv_raw_side(session->vv)];
}

static struct vv_lane *vv_coded_lane(struct vv_session *session)
{
	return &session->lanes[vv_coded_side(session->vv)];
}

/* Raw formats are those that go with the coded one; coded ones are all there. */
static struct vv_format *vv_format_at(struct vv_session *session,
				      enum vv_side side, u32 index)
{
	struct vv_formats *all = &session->vv->formats[side];
	u32 i;

	for (i = 0; i < all->num; i++) {
		if (side == vv_raw_side(session->vv) &&
		    !vv_format_goes_with(session->vv, &all->formats[i],
					 vv_coded_lane(session)->format))
			continue;
		if (!index--)
			return &all->formats[i];
	}
	return NULL;
}

static struct vv_format *vv_format_choose(struct vv_session *session,
					  enum vv_side side, u32 fourcc)
{
	struct vv_format *format;
	u32 index;

	for (index = 0; (format = vv_format_at(session, side, index)); index++)
		if (format->pixel->fourcc == fourcc)
			return format;
	return vv_format_at(session, side, 0);
}

int vv_enum_format(struct file *file, void *priv, struct v4l2_fmtdesc *desc)
{
	struct vv_session *session = vv_session_of(file);
	const struct vv_format *format;

	mutex_lock(&session->lock);
	format = vv_format_at(session, vv_side_of(desc->type), desc->index);
	mutex_unlock(&session->lock);
	if (!format)
		return -EINVAL;
	desc->pixelformat = format->pixel->fourcc;
	if (!format->pixel->coded || session->vv->encoder)
		return 0;
	/* A buffer is one access unit, as V4L2 has it without more flags. */
	desc->flags |= V4L2_FMT_FLAG_DYN_RESOLUTION;
	return 0;
}

static struct vv_format *vv_format_of_any_side(struct vv_session *session,
					       u32 fourcc)
{
	return vv_format_find(session->vv, VV_IN, fourcc) ?:
	       vv_format_find(session->vv, VV_OUT, fourcc);
}

int vv_enum_sizes(struct file *file, void *priv, struct v4l2_frmsizeenum *size)
{
	struct vv_session *session = vv_session_of(file);
	const struct vv_format *format =
		vv_format_of_any_side(session, size->pixel_format);
	bool discrete = true;
	u32 i;

	if (!format)
		return -EINVAL;
	for (i = 0; i < format->num_frames; i++)
		if (format->frames[i].width.min != format->frames[i].width.max ||
		    format->frames[i].height.min != format->frames[i].height.max)
			discrete = false;
	if (discrete && size->index < format->num_frames) {
		size->type = V4L2_FRMSIZE_TYPE_DISCRETE;
		size->discrete.width = format->frames[size->index].width.min;
		size->discrete.height = format->frames[size->index].height.min;
		return 0;
	}
	if (discrete || size->index)
		return -EINVAL;
	size->type = V4L2_FRMSIZE_TYPE_STEPWISE;
	size->stepwise.min_width = format->width.min;
	size->stepwise.max_width = format->width.max;
	size->stepwise.step_width = format->width.step;
	size->stepwise.min_height = format->height.min;
	size->stepwise.max_height = format->height.max;
	size->stepwise.step_height = format->height.step;
	return 0;
}

/* In frames a second, of the first frame size that has this one. */
static const struct vv_frame *vv_frame_find(const struct vv_format *format,
					    u32 width, u32 height)
{
	u32 i;

	for (i = 0; i < format->num_frames; i++) {
		const struct vv_frame *frame = &format->frames[i];

		if (vv_range_fit(&frame->width, width) == width &&
		    vv_range_fit(&frame->height, height) == height)
			return frame;
	}
	return NULL;
}

int vv_enum_intervals(struct file *file, void *priv,
		      struct v4l2_frmivalenum *interval)
{
	struct vv_session *session = vv_session_of(file);
	const struct vv_format *format =
		vv_format_of_any_side(session, interval->pixel_format);
	const struct vv_frame *frame;

	if (!format || interval->index)
		return -EINVAL;
	frame = vv_frame_find(format, interval->width, interval->height);
	if (!frame || !frame->num_rates)
		return -EINVAL;
	interval->type = V4L2_FRMIVAL_TYPE_CONTINUOUS;
	interval->stepwise.min = (struct v4l2_fract) { 1, frame->rates[0].max };
	interval->stepwise.max = (struct v4l2_fract) { 1, frame->rates[0].min };
	interval->stepwise.step = (struct v4l2_fract) { 1, 1 };
	return 0;
}

/* ---- formats ---- */

static void vv_colours_copy(struct v4l2_pix_format_mplane *to,
			    const struct v4l2_pix_format_mplane *from)
{
	to->colorspace = from->colorspace;
	to->ycbcr_enc = from->ycbcr_enc;
	to->quantization = from->quantization;
	to->xfer_func = from->xfer_func;
}

/* The device tells nothing of colours: they are what the program says. */
static void vv_colours_try(struct v4l2_pix_format_mplane *pix)
{
	if (pix->colorspace && pix->colorspace <= V4L2_COLORSPACE_DCI_P3 &&
	    pix->ycbcr_enc <= V4L2_YCBCR_ENC_SMPTE240M &&
	    pix->quantization <= V4L2_QUANTIZATION_LIM_RANGE &&
	    pix->xfer_func <= V4L2_XFER_FUNC_SMPTE2084)
		return;
	pix->colorspace = V4L2_COLORSPACE_REC709;
	pix->ycbcr_enc = V4L2_YCBCR_ENC_DEFAULT;
	pix->quantization = V4L2_QUANTIZATION_DEFAULT;
	pix->xfer_func = V4L2_XFER_FUNC_DEFAULT;
}

/* What a codec gives out has the size of what goes in, at least. */
static const struct vv_format *vv_format_try(struct vv_session *session,
					     enum vv_side side,
					     struct v4l2_pix_format_mplane *pix)
{
	const struct vv_format *format =
		vv_format_choose(session, side, pix->pixelformat);

	if (side == VV_OUT) {
		/* A decoder's buffers may be larger: it puts pictures in them. */
		if (session->vv->encoder) {
			pix->width = 0;
			pix->height = 0;
		}
		pix->width = max_t(u32, pix->width, session->crop.width);
		pix->height = max_t(u32, pix->height, session->crop.height);
		vv_colours_copy(pix, &session->lanes[VV_IN].pix);
	} else {
		vv_colours_try(pix);
	}
	if (format->pixel->coded)
		vv_try_coded(format, pix);
	else
		vv_try_raw(format, pix);
	return format;
}

int vv_g_format(struct file *file, void *priv, struct v4l2_format *f)
{
	struct vv_session *session = vv_session_of(file);

	mutex_lock(&session->lock);
	f->fmt.pix_mp = session->lanes[vv_side_of(f->type)].pix;
	mutex_unlock(&session->lock);
	return 0;
}

int vv_try_format(struct file *file, void *priv, struct v4l2_format *f)
{
	struct vv_session *session = vv_session_of(file);

	mutex_lock(&session->lock);
	vv_format_try(session, vv_side_of(f->type), &f->fmt.pix_mp);
	mutex_unlock(&session->lock);
	return 0;
}

/* The raw side follows: another codec may not have the format that was set. */
static void vv_raw_follow(struct vv_session *session)
{
	struct vv_lane *raw = vv_raw_lane(session);

	raw->format = vv_format_choose(session, raw->side,
				       raw->format->pixel->fourcc);
	if (!session->vv->encoder) {
		raw->pix.width = session->lanes[VV_IN].pix.width;
		raw->pix.height = session->lanes[VV_IN].pix.height;
	}
	vv_try_raw(raw->format, &raw->pix);
	session->crop = (struct v4l2_rect) {
		.width = raw->pix.width,
		.height = raw->pix.height,
	};
}

void vv_encoder_coded_follow(struct vv_session *session)
{
	struct vv_lane *coded = vv_coded_lane(session);

	coded->pix.width = session->crop.width;
	coded->pix.height = session->crop.height;
	vv_try_coded(coded->format, &coded->pix);
}

static int vv_format_set(struct vv_session *session, enum vv_side side,
			 struct v4l2_pix_format_mplane *pix)
{
	struct vv_lane *lane = &session->lanes[side];
	struct vv_lane *other = &session->lanes[!side];
	const struct vv_format *format;
	int err;

	if (vb2_is_busy(&lane->queue))
		return -EBUSY;
	format = vv_format_try(session, side, pix);
	if (format->pixel->coded && format != lane->format) {
		/* Another codec is another stream. */
		if (vb2_is_busy(&other->queue))
			return -EBUSY;
		vv_stream_close(session);
	}
	lane->format = format;
	lane->pix = *pix;
	vv_colours_copy(&other->pix, pix);
	/* Where pictures are in their buffers is chosen for each format. */
	if (!format->pixel->coded) {
		session->crop.left = 0;
		session->crop.top = 0;
	}
	if (!vb2_is_busy(&other->queue)) {
		if (format->pixel->coded != session->vv->encoder)
			vv_raw_follow(session);
		if (session->vv->encoder)
			vv_encoder_coded_follow(session);
	}
	err = vv_params_agree(session, side);
	if (!err && !vb2_is_busy(&other->queue))
		err = vv_params_agree(session, !side);
	*pix = lane->pix;
	return err;
}

int vv_s_format(struct file *file, void *priv, struct v4l2_format *f)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vv_format_set(session, vv_side_of(f->type), &f->fmt.pix_mp);
	mutex_unlock(&session->lock);
	return err;
}

/* ---- frame intervals ---- */

/* Frames a second; 0: not known. */
u32 vv_frame_rate(const struct vv_session *session)
{
	if (!session->vv->encoder)
		return 0;
	return max_t(u32, DIV_ROUND_CLOSEST(session->interval.denominator,
					    session->interval.numerator), 1);
}

static int vv_parm_is_there(const struct v4l2_streamparm *parm)
{
	return parm->type == V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE ? 0 : -EINVAL;
}

int vv_g_parm(struct file *file, void *priv, struct v4l2_streamparm *parm)
{
	struct vv_session *session = vv_session_of(file);
	int err = vv_parm_is_there(parm);

	if (err)
		return err;
	memset(&parm->parm, 0, sizeof(parm->parm));
	parm->parm.output.capability = V4L2_CAP_TIMEPERFRAME;
	mutex_lock(&session->lock);
	parm->parm.output.timeperframe = session->interval;
	mutex_unlock(&session->lock);
	return 0;
}

int vv_s_parm(struct file *file, void *priv, struct v4l2_streamparm *parm)
{
	struct vv_session *session = vv_session_of(file);
	struct v4l2_fract wish = parm->parm.output.timeperframe;
	int err = vv_parm_is_there(parm);

	if (err)
		return err;
	mutex_lock(&session->lock);
	if (session->lanes[VV_IN].streaming) {
		err = -EBUSY;
	} else {
		if (!wish.numerator || !wish.denominator ||
		    wish.denominator / wish.numerator > 1000)
			wish = (struct v4l2_fract) { 1, 30 };
		session->interval = wish;
		/* All that the drafts have is a whole number; so that is told. */
		session->interval = (struct v4l2_fract) {
			1, vv_frame_rate(session)
		};
		err = vv_params_agree(session, VV_IN);
		if (!err)
			err = vv_params_agree(session, VV_OUT);
	}
	mutex_unlock(&session->lock);
	return err ?: vv_g_parm(file, priv, parm);
}
