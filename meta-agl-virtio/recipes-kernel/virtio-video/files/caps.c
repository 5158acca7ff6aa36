// SPDX-License-Identifier: GPL-2.0
/*
 * What the device says it is able to do, read once and believed as far as it
 * makes sense: formats that this driver does not know are left out, and so are
 * those whose ranges are none.
 */

#include <linux/log2.h>
#include <linux/slab.h>

#include "driver.h"

#define VV_LARGEST_CAPS		SZ_1M
#define VV_LARGEST_SIDE		16384

/* What is left of an answer. */
struct vv_reader {
	const u8 *at;
	size_t left;
};

static const void *vv_read(struct vv_reader *reader, size_t size)
{
	const void *at = reader->at;

	if (reader->left < size)
		return NULL;
	reader->at += size;
	reader->left -= size;
	return at;
}

static bool vv_range_read(const struct vv_wire_range *wire,
			  struct vv_range *range, u32 most)
{
	range->min = max_t(u32, le32_to_cpu(wire->min), 1);
	range->max = min_t(u32, le32_to_cpu(wire->max), most);
	range->step = clamp_t(u32, le32_to_cpu(wire->step), 1, most);
	return range->min <= range->max;
}

static void vv_range_widen(struct vv_range *all, const struct vv_range *one)
{
	if (!all->step) {
		*all = *one;
		return;
	}
	all->min = min(all->min, one->min);
	all->max = max(all->max, one->max);
	all->step = min(all->step, one->step);
}

/* Read to its end also where it is not kept: what follows begins there. */
static int vv_frame_read(struct vv_reader *reader, struct vv_format *format)
{
	const struct vv_wire_frame *wire = vv_read(reader, sizeof(*wire));
	const struct vv_wire_range *rate;
	struct vv_frame frame = { 0 };
	bool sound;
	u32 num;

	if (!wire)
		return -EPROTO;
	sound = vv_range_read(&wire->width, &frame.width, VV_LARGEST_SIDE) &&
		vv_range_read(&wire->height, &frame.height, VV_LARGEST_SIDE);
	for (num = le32_to_cpu(wire->num_rates); num; num--) {
		rate = vv_read(reader, sizeof(*rate));
		if (!rate)
			return -EPROTO;
		if (frame.num_rates < VV_MAX_RATES &&
		    vv_range_read(rate, &frame.rates[frame.num_rates], 1000))
			frame.num_rates++;
	}
	if (sound && format->num_frames < VV_MAX_FRAMES) {
		vv_range_widen(&format->width, &frame.width);
		vv_range_widen(&format->height, &frame.height);
		format->frames[format->num_frames++] = frame;
	}
	return 0;
}

static void vv_format_add(struct vv_formats *all, const struct vv_format *one,
			  const struct vv_pixel *pixel)
{
	u32 i;

	if (!pixel || !one->num_frames || all->num == VV_MAX_FORMATS)
		return;
	for (i = 0; i < all->num; i++)
		if (all->formats[i].pixel == pixel)
			return;
	all->formats[all->num] = *one;
	all->formats[all->num++].pixel = pixel;
}

static int vv_desc_read(struct vv_reader *reader, struct vv_formats *all,
			u32 number)
{
	const struct vv_wire_desc *wire = vv_read(reader, sizeof(*wire));
	struct vv_format *format;
	u32 code, layout, num;
	int err = 0;

	if (!wire)
		return -EPROTO;
	format = kzalloc_obj(*format);
	if (!format)
		return -ENOMEM;
	code = le32_to_cpu(wire->format);
	layout = le32_to_cpu(wire->planes_layout);
	format->mask = le64_to_cpu(wire->mask);
	format->number = number;
	format->align = le32_to_cpu(wire->plane_align);
	if (!is_power_of_2(format->align) || format->align > SZ_4K)
		format->align = 1;
	for (num = le32_to_cpu(wire->num_frames); num && !err; num--)
		err = vv_frame_read(reader, format);
	if (!err) {
		/* A bitstream has no planes, and may name no layout of them. */
		if (layout & VV_LAYOUT_SINGLE_BUFFER || code >= VV_FORMAT_MPEG2)
			vv_format_add(all, format, vv_pixel_find(code, false));
		if (layout & VV_LAYOUT_PER_PLANE)
			vv_format_add(all, format, vv_pixel_find(code, true));
	}
	kfree(format);
	return err;
}

static int vv_side_read(struct vv_device *vv, enum vv_side side)
{
	struct vv_wire_query_capability out = {
		.header.type = cpu_to_le32(VV_CMD_QUERY_CAPABILITY),
		.queue_type = cpu_to_le32(vv_wire_side(side)),
	};
	struct vv_formats *all = &vv->formats[side];
	u32 len = min_t(u32, vv->max_caps_length, VV_LARGEST_CAPS);
	const struct vv_wire_capabilities *head;
	struct vv_reader reader;
	u32 number, num, written;
	void *in;
	int err;

	in = kzalloc(len, GFP_KERNEL);
	all->formats = kvcalloc(VV_MAX_FORMATS, sizeof(*all->formats),
				GFP_KERNEL);
	err = -ENOMEM;
	if (!in || !all->formats)
		goto out;
	err = vv_exchange(vv, &out, sizeof(out), in, len, &written);
	if (!err)
		err = vv_response_check(in, written, sizeof(*head),
					VV_RESP_OK_QUERY_CAPABILITY, 0);
	if (err)
		goto out;
	reader.at = in;
	reader.left = written;
	head = vv_read(&reader, sizeof(*head));
	num = min_t(u32, le32_to_cpu(head->num_descs), 64);
	for (number = 0; number < num && !err; number++)
		err = vv_desc_read(&reader, all, number);
out:
	kfree(in);
	return err;
}

/* Only pairs are of use: a raw format without a coded one is left out. */
static void vv_keep_pairs(struct vv_device *vv, enum vv_side side, bool coded)
{
	struct vv_formats *all = &vv->formats[side];
	struct vv_formats *others = &vv->formats[!side];
	u32 i, j, kept = 0;

	for (i = 0; i < all->num; i++) {
		struct vv_format *one = &all->formats[i];
		bool found = false;

		for (j = 0; j < others->num; j++) {
			struct vv_format *other = &others->formats[j];

			if (other->pixel->coded != coded &&
			    vv_format_goes_with(vv, coded ? other : one,
						coded ? one : other))
				found = true;
		}
		if (one->pixel->coded == coded && found)
			all->formats[kept++] = *one;
	}
	all->num = kept;
}

static int vv_controls_read(struct vv_device *vv)
{
	struct vv_formats *coded = &vv->formats[vv_coded_side(vv)];
	u32 i;
	int err;

	for (i = 0; i < coded->num; i++) {
		struct vv_format *format = &coded->formats[i];
		struct { u32 control; bool *has; } more[] = {
			{ VV_CONTROL_BITRATE, &format->has_bitrate },
			{ VV_CONTROL_FORCE_KEY_FRAME,
			  &format->has_force_key_frame },
			{ VV_CONTROL_BITRATE_MODE, &format->has_bitrate_mode },
			{ VV_CONTROL_KEY_FRAME_INTERVAL,
			  &format->has_key_frame_interval },
		};
		u32 j, wire = format->pixel->wire;

		err = vv_query_control(vv, VV_CONTROL_PROFILE, wire,
				       &format->profiles);
		if (!err)
			err = vv_query_control(vv, VV_CONTROL_LEVEL, wire,
					       &format->levels);
		for (j = 0; !err && vv->encoder && j < ARRAY_SIZE(more); j++) {
			struct vv_values values;

			err = vv_query_control(vv, more[j].control, wire,
					       &values);
			*more[j].has = values.known;
		}
		if (err)
			return err;
	}
	return 0;
}

int vv_caps_read(struct vv_device *vv)
{
	int err = vv_side_read(vv, VV_IN);

	if (!err)
		err = vv_side_read(vv, VV_OUT);
	if (err)
		return err;
	vv_keep_pairs(vv, vv_raw_side(vv), false);
	vv_keep_pairs(vv, vv_coded_side(vv), true);
	if (!vv->formats[VV_IN].num || !vv->formats[VV_OUT].num)
		return -ENODEV;
	return vv_controls_read(vv);
}

void vv_caps_free(struct vv_device *vv)
{
	kvfree(vv->formats[VV_IN].formats);
	kvfree(vv->formats[VV_OUT].formats);
}
