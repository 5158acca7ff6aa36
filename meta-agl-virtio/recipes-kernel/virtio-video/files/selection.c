// SPDX-License-Identifier: GPL-2.0
/*
 * Rectangles: what of its pictures an encoder encodes, and where in its buffers
 * a decoder puts what it has decoded. Sizes and places are even, for two by two
 * pixels have one sample of colour.
 */

#include "driver.h"

static struct v4l2_rect vv_whole(u32 width, u32 height)
{
	return (struct v4l2_rect) { .width = width, .height = height };
}

static int vv_selection_get(struct vv_session *session,
			    struct v4l2_selection *sel)
{
	const struct v4l2_pix_format_mplane *pix =
		&session->lanes[vv_raw_side(session->vv)].pix;
	const struct v4l2_rect *crop = &session->crop;
	bool encoder = session->vv->encoder;

	if (sel->type != (encoder ? V4L2_BUF_TYPE_VIDEO_OUTPUT :
				    V4L2_BUF_TYPE_VIDEO_CAPTURE))
		return -EINVAL;
	switch (sel->target) {
	case V4L2_SEL_TGT_CROP:
	case V4L2_SEL_TGT_CROP_DEFAULT:
	case V4L2_SEL_TGT_CROP_BOUNDS:
		/* All that is seen of a stream is shown, in its own size. */
		if (!encoder)
			sel->r = vv_whole(crop->width, crop->height);
		else if (sel->target == V4L2_SEL_TGT_CROP)
			sel->r = *crop;
		else
			sel->r = vv_whole(pix->width, pix->height);
		if (!encoder && sel->target == V4L2_SEL_TGT_CROP_BOUNDS)
			sel->r = vv_whole(ALIGN(crop->width, 2),
					  ALIGN(crop->height, 2));
		return 0;
	case V4L2_SEL_TGT_COMPOSE:
	case V4L2_SEL_TGT_COMPOSE_PADDED:
		/* Nothing is written around a picture. */
		sel->r = *crop;
		break;
	case V4L2_SEL_TGT_COMPOSE_DEFAULT:
		sel->r = vv_whole(crop->width, crop->height);
		break;
	case V4L2_SEL_TGT_COMPOSE_BOUNDS:
		sel->r = vv_whole(pix->width, pix->height);
		break;
	default:
		return -EINVAL;
	}
	return encoder ? -EINVAL : 0;
}

int vv_g_selection(struct file *file, void *priv, struct v4l2_selection *sel)
{
	struct vv_session *session = vv_session_of(file);
	int err;

	mutex_lock(&session->lock);
	err = vv_selection_get(session, sel);
	mutex_unlock(&session->lock);
	return err;
}

/* Whether a size is what the flags allow for a wish. */
static int vv_size_admit(u32 size, u32 wish, u32 flags)
{
	if ((flags & V4L2_SEL_FLAG_GE && size < wish) ||
	    (flags & V4L2_SEL_FLAG_LE && size > wish))
		return -ERANGE;
	return 0;
}

/*
 * The even size nearest to a wish that the flags allow. Of two that are as near,
 * the smaller one: it shows nothing that was not wished.
 */
static int vv_size_fit(u32 *size, u32 all, u32 flags)
{
	u32 wish = *size;
	u32 even = min_t(u32, wish, all);

	even = flags & V4L2_SEL_FLAG_GE ? ALIGN(even, 2) : ALIGN_DOWN(even, 2);
	*size = clamp_t(u32, even, 2, max_t(u32, all, 2));
	return vv_size_admit(*size, wish, flags);
}

/* Where a size is to be: its middle as near as can be to that of the wish. */
static s32 vv_place_fit(s32 begin, u32 wish, u32 size, u32 all)
{
	s64 middle = (s64)begin + ((s64)wish - size) / 2;

	return clamp_t(s64, middle, 0, all > size ? all - size : 0) & ~1;
}

static int vv_rect_fit(const struct v4l2_pix_format_mplane *pix,
		       struct v4l2_rect *rect, u32 flags)
{
	struct v4l2_rect wish = *rect;
	int err = vv_size_fit(&rect->width, pix->width, flags);

	if (!err)
		err = vv_size_fit(&rect->height, pix->height, flags);
	rect->left = vv_place_fit(wish.left, wish.width, rect->width,
				  pix->width);
	rect->top = vv_place_fit(wish.top, wish.height, rect->height,
				 pix->height);
	return err;
}

static int vv_crop_set(struct vv_session *session, struct v4l2_selection *sel)
{
	struct vv_lane *raw = &session->lanes[VV_IN];
	int err = vv_rect_fit(&raw->pix, &sel->r, sel->flags);

	if (err)
		return err;
	if (vb2_is_busy(&session->lanes[VV_OUT].queue))
		return -EBUSY;
	session->crop = sel->r;
	vv_encoder_coded_follow(session);
	return vv_params_agree(session, VV_IN);
}

/* A decoder scales nothing: pictures have their size, wherever they are put. */
static int vv_compose_set(struct vv_session *session,
			  struct v4l2_selection *sel)
{
	struct vv_lane *raw = &session->lanes[VV_OUT];
	struct v4l2_rect crop = session->crop;
	int err = vv_size_admit(crop.width, sel->r.width, sel->flags) ?:
		  vv_size_admit(crop.height, sel->r.height, sel->flags);

	if (err || sel->target == V4L2_SEL_TGT_CROP)
		return err;
	crop.left = vv_place_fit(sel->r.left, sel->r.width, crop.width,
				 raw->pix.width);
	crop.top = vv_place_fit(sel->r.top, sel->r.height, crop.height,
				raw->pix.height);
	if (crop.left == session->crop.left && crop.top == session->crop.top)
		return 0;
	/* Those of another place would come in the same queue. */
	if (raw->streaming)
		return -EBUSY;
	session->crop = crop;
	return vv_params_agree(session, VV_OUT);
}

int vv_s_selection(struct file *file, void *priv, struct v4l2_selection *sel)
{
	struct vv_session *session = vv_session_of(file);
	struct v4l2_selection now = *sel;
	int err;

	mutex_lock(&session->lock);
	err = vv_selection_get(session, &now);
	if (!err && sel->target != V4L2_SEL_TGT_CROP &&
	    sel->target != V4L2_SEL_TGT_COMPOSE)
		err = -EINVAL;
	if (!err)
		err = session->vv->encoder ? vv_crop_set(session, sel) :
					     vv_compose_set(session, sel);
	if (!err)
		err = vv_selection_get(session, sel);
	mutex_unlock(&session->lock);
	return err;
}
