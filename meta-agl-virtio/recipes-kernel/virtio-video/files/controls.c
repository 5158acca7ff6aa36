// SPDX-License-Identifier: GPL-2.0
/*
 * V4L2's controls over those of the device. What is set before there is a stream
 * reaches it when there is one.
 */

#include <linux/bitops.h>

#include "driver.h"

#define VV_DEFAULT_BITRATE	2000000
#define VV_DEFAULT_INTERVAL	60

/* Pairs of a value of V4L2's and the device's name of it. */
struct vv_value {
	u8 v4l2;
	u32 wire;
};

static const struct vv_value vv_h264_profiles[] = {
	{ V4L2_MPEG_VIDEO_H264_PROFILE_BASELINE, VV_PROFILE_H264_BASELINE },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_CONSTRAINED_BASELINE,
	  VV_PROFILE_H264_BASELINE },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_MAIN, VV_PROFILE_H264_MAIN },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_EXTENDED, VV_PROFILE_H264_EXTENDED },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_HIGH, VV_PROFILE_H264_HIGH },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_HIGH_10, VV_PROFILE_H264_HIGH_10 },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_HIGH_422, VV_PROFILE_H264_HIGH_422 },
	{ V4L2_MPEG_VIDEO_H264_PROFILE_HIGH_444_PREDICTIVE,
	  VV_PROFILE_H264_HIGH_444_PREDICTIVE },
};

static const struct vv_value vv_h264_levels[] = {
	{ V4L2_MPEG_VIDEO_H264_LEVEL_1_0, VV_LEVEL_H264_1_0 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_1_1, VV_LEVEL_H264_1_0 + 1 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_1_2, VV_LEVEL_H264_1_0 + 2 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_1_3, VV_LEVEL_H264_1_0 + 3 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_2_0, VV_LEVEL_H264_1_0 + 4 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_2_1, VV_LEVEL_H264_1_0 + 5 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_2_2, VV_LEVEL_H264_1_0 + 6 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_3_0, VV_LEVEL_H264_1_0 + 7 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_3_1, VV_LEVEL_H264_1_0 + 8 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_3_2, VV_LEVEL_H264_1_0 + 9 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_4_0, VV_LEVEL_H264_1_0 + 10 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_4_1, VV_LEVEL_H264_1_0 + 11 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_4_2, VV_LEVEL_H264_1_0 + 12 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_5_0, VV_LEVEL_H264_1_0 + 13 },
	{ V4L2_MPEG_VIDEO_H264_LEVEL_5_1, VV_LEVEL_H264_5_1 },
};

static const struct vv_value vv_hevc_profiles[] = {
	{ V4L2_MPEG_VIDEO_HEVC_PROFILE_MAIN, VV_PROFILE_HEVC_MAIN },
	{ V4L2_MPEG_VIDEO_HEVC_PROFILE_MAIN_STILL_PICTURE,
	  VV_PROFILE_HEVC_MAIN_STILL_PICTURE },
	{ V4L2_MPEG_VIDEO_HEVC_PROFILE_MAIN_10, VV_PROFILE_HEVC_MAIN_10 },
};

static const struct vv_value vv_vp8_profiles[] = {
	{ V4L2_MPEG_VIDEO_VP8_PROFILE_0, VV_PROFILE_VP8_0 },
	{ V4L2_MPEG_VIDEO_VP8_PROFILE_1, VV_PROFILE_VP8_1 },
	{ V4L2_MPEG_VIDEO_VP8_PROFILE_2, VV_PROFILE_VP8_2 },
	{ V4L2_MPEG_VIDEO_VP8_PROFILE_3, VV_PROFILE_VP8_3 },
};

static const struct vv_value vv_vp9_profiles[] = {
	{ V4L2_MPEG_VIDEO_VP9_PROFILE_0, VV_PROFILE_VP9_0 },
	{ V4L2_MPEG_VIDEO_VP9_PROFILE_1, VV_PROFILE_VP9_1 },
	{ V4L2_MPEG_VIDEO_VP9_PROFILE_2, VV_PROFILE_VP9_2 },
	{ V4L2_MPEG_VIDEO_VP9_PROFILE_3, VV_PROFILE_VP9_3 },
};

/* A menu of V4L2's, for the profiles or levels of one codec. */
static const struct vv_menu {
	u32 id;
	u32 codec;
	u32 control;
	const struct vv_value *values;
	u32 num;
} vv_menus[] = {
	{ V4L2_CID_MPEG_VIDEO_H264_PROFILE, VV_FORMAT_H264, VV_CONTROL_PROFILE,
	  vv_h264_profiles, ARRAY_SIZE(vv_h264_profiles) },
	{ V4L2_CID_MPEG_VIDEO_H264_LEVEL, VV_FORMAT_H264, VV_CONTROL_LEVEL,
	  vv_h264_levels, ARRAY_SIZE(vv_h264_levels) },
	{ V4L2_CID_MPEG_VIDEO_HEVC_PROFILE, VV_FORMAT_HEVC, VV_CONTROL_PROFILE,
	  vv_hevc_profiles, ARRAY_SIZE(vv_hevc_profiles) },
	{ V4L2_CID_MPEG_VIDEO_VP8_PROFILE, VV_FORMAT_VP8, VV_CONTROL_PROFILE,
	  vv_vp8_profiles, ARRAY_SIZE(vv_vp8_profiles) },
	{ V4L2_CID_MPEG_VIDEO_VP9_PROFILE, VV_FORMAT_VP9, VV_CONTROL_PROFILE,
	  vv_vp9_profiles, ARRAY_SIZE(vv_vp9_profiles) },
};

static const struct vv_format *vv_coded_format(const struct vv_session *session)
{
	return session->lanes[vv_coded_side(session->vv)].format;
}

static int vv_menu_set(struct vv_session *session, const struct v4l2_ctrl *ctrl)
{
	u32 i, j;

	/* What nobody has chosen is for the device to choose. */
	if (session->applying && ctrl->val == ctrl->default_value)
		return 0;
	for (i = 0; i < ARRAY_SIZE(vv_menus); i++) {
		const struct vv_menu *menu = &vv_menus[i];

		/* Those of other codecs are kept until their turn comes. */
		if (menu->id != ctrl->id ||
		    menu->codec != vv_coded_format(session)->pixel->wire)
			continue;
		for (j = 0; j < menu->num; j++)
			if (menu->values[j].v4l2 == ctrl->val)
				return vv_set_control(session, menu->control,
						      menu->values[j].wire);
	}
	return 0;
}

/* Called with the controls' lock held. */
static int vv_control_set(struct v4l2_ctrl *ctrl)
{
	struct vv_session *session = container_of(ctrl->handler,
						  struct vv_session, controls);
	const struct vv_format *coded = vv_coded_format(session);

	if (!session->stream || !session->vv->encoder)
		return 0;
	switch (ctrl->id) {
	case V4L2_CID_MPEG_VIDEO_BITRATE:
		return coded->has_bitrate ?
			vv_set_control(session, VV_CONTROL_BITRATE,
				       ctrl->val) : 0;
	case V4L2_CID_MPEG_VIDEO_BITRATE_MODE:
		return coded->has_bitrate_mode ?
			vv_set_control(session, VV_CONTROL_BITRATE_MODE,
				       ctrl->val ==
				       V4L2_MPEG_VIDEO_BITRATE_MODE_CBR ?
				       VV_BITRATE_MODE_CBR :
				       VV_BITRATE_MODE_VBR) : 0;
	case V4L2_CID_MPEG_VIDEO_GOP_SIZE:
		return coded->has_key_frame_interval ?
			vv_set_control(session, VV_CONTROL_KEY_FRAME_INTERVAL,
				       ctrl->val) : 0;
	case V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME:
		return coded->has_force_key_frame ?
			vv_set_control(session, VV_CONTROL_FORCE_KEY_FRAME,
				       1) : 0;
	}
	return vv_menu_set(session, ctrl);
}

static const struct v4l2_ctrl_ops vv_control_ops = {
	.s_ctrl = vv_control_set,
};

/* Where nothing is asked for, VP8 is of its first profile, others of the last. */
static u32 vv_menu_default(const struct vv_menu *menu, u64 has)
{
	return menu->codec == VV_FORMAT_VP8 ? __ffs64(has) : fls64(has) - 1;
}

/*
 * A menu with what the device has of it, if it has anything. What a decoder
 * decodes is for the stream to say: its menus only tell what it is able to.
 */
static void vv_menu_add(struct vv_session *session, const struct vv_menu *menu)
{
	struct v4l2_ctrl *ctrl = NULL;
	struct vv_device *vv = session->vv;
	struct vv_formats *all = &vv->formats[vv_coded_side(vv)];
	const struct vv_values *values = NULL;
	u64 has = 0;
	u32 i, j;

	for (i = 0; i < all->num; i++)
		if (all->formats[i].pixel->wire == menu->codec)
			values = menu->control == VV_CONTROL_PROFILE ?
				 &all->formats[i].profiles :
				 &all->formats[i].levels;
	for (i = 0; values && i < menu->num; i++)
		for (j = 0; j < values->num; j++)
			if (values->values[j] == menu->values[i].wire)
				has |= BIT_ULL(menu->values[i].v4l2);
	if (has)
		ctrl = v4l2_ctrl_new_std_menu(&session->controls,
					      &vv_control_ops, menu->id,
					      fls64(has) - 1, ~has,
					      vv_menu_default(menu, has));
	if (ctrl && !vv->encoder)
		ctrl->flags |= V4L2_CTRL_FLAG_READ_ONLY;
}

/* Of all codecs together: which of them is chosen comes later. */
static void vv_encoder_controls_add(struct vv_session *session)
{
	struct v4l2_ctrl_handler *handler = &session->controls;
	struct vv_formats *all = &session->vv->formats[VV_OUT];
	struct vv_format any = { 0 };
	u32 i;

	for (i = 0; i < all->num; i++) {
		any.has_bitrate |= all->formats[i].has_bitrate;
		any.has_bitrate_mode |= all->formats[i].has_bitrate_mode;
		any.has_force_key_frame |= all->formats[i].has_force_key_frame;
		any.has_key_frame_interval |=
			all->formats[i].has_key_frame_interval;
	}
	if (any.has_bitrate)
		v4l2_ctrl_new_std(handler, &vv_control_ops,
				  V4L2_CID_MPEG_VIDEO_BITRATE, 16000,
				  200000000, 1, VV_DEFAULT_BITRATE);
	if (any.has_bitrate_mode)
		v4l2_ctrl_new_std_menu(handler, &vv_control_ops,
				       V4L2_CID_MPEG_VIDEO_BITRATE_MODE,
				       V4L2_MPEG_VIDEO_BITRATE_MODE_CBR, 0,
				       V4L2_MPEG_VIDEO_BITRATE_MODE_VBR);
	if (any.has_force_key_frame)
		v4l2_ctrl_new_std(handler, &vv_control_ops,
				  V4L2_CID_MPEG_VIDEO_FORCE_KEY_FRAME,
				  0, 0, 0, 0);
	if (any.has_key_frame_interval)
		v4l2_ctrl_new_std(handler, &vv_control_ops,
				  V4L2_CID_MPEG_VIDEO_GOP_SIZE, 0, 10000, 1,
				  VV_DEFAULT_INTERVAL);
}

int vv_controls_init(struct vv_session *session)
{
	struct v4l2_ctrl_handler *handler = &session->controls;
	bool encoder = session->vv->encoder;
	u32 i;

	v4l2_ctrl_handler_init(handler, 10);
	session->min_buffers =
		v4l2_ctrl_new_std(handler, NULL, encoder ?
				  V4L2_CID_MIN_BUFFERS_FOR_OUTPUT :
				  V4L2_CID_MIN_BUFFERS_FOR_CAPTURE,
				  1, VIDEO_MAX_FRAME, 1, 1);
	for (i = 0; i < ARRAY_SIZE(vv_menus); i++)
		vv_menu_add(session, &vv_menus[i]);
	if (encoder)
		vv_encoder_controls_add(session);
	return handler->error;
}

/* A stream is new: tell it what was set before it was there. */
int vv_controls_apply(struct vv_session *session)
{
	struct vv_lane *lane = &session->lanes[vv_raw_side(session->vv)];
	int err;

	v4l2_ctrl_lock(session->min_buffers);
	session->applying = true;
	err = __v4l2_ctrl_s_ctrl(session->min_buffers, lane->min_buffers);
	if (!err)
		err = __v4l2_ctrl_handler_setup(&session->controls);
	session->applying = false;
	v4l2_ctrl_unlock(session->min_buffers);
	return err;
}
