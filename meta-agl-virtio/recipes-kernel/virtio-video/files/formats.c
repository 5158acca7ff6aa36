// SPDX-License-Identifier: GPL-2.0
/*
 * Pixel formats by both their names, and where the samples of a picture lie.
 */

#include "driver.h"

#define VV_SMALLEST_CODED	SZ_64K
#define VV_LARGEST_CODED	SZ_32M
#define VV_LARGEST_PLANE	SZ_1G

#define RAW(name, v4l2, apart, parts, size, h, v, n) \
	{ .wire = VV_FORMAT_ ## name, .fourcc = V4L2_PIX_FMT_ ## v4l2, \
	  .per_plane = apart, .components = parts, .bytes = size, \
	  .hdiv = h, .vdiv = v, .interleaved = n }
#define CODED(name) \
	{ .wire = VV_FORMAT_ ## name, .fourcc = V4L2_PIX_FMT_ ## name, \
	  .coded = true, .components = 1 }

/* The device names the RGB formats by the order of bytes in memory. */
static const struct vv_pixel vv_pixels[] = {
	RAW(NV12, NV12, false, 2, 1, 2, 2, 2),
	RAW(NV12, NV12M, true, 2, 1, 2, 2, 2),
	RAW(YUV420, YUV420, false, 3, 1, 2, 2, 1),
	RAW(YUV420, YUV420M, true, 3, 1, 2, 2, 1),
	RAW(YVU420, YVU420, false, 3, 1, 2, 2, 1),
	RAW(YVU420, YVU420M, true, 3, 1, 2, 2, 1),
	RAW(YUV422, YUV422P, false, 3, 1, 2, 1, 1),
	RAW(YUV422, YUV422M, true, 3, 1, 2, 1, 1),
	RAW(ARGB8888, ARGB32, false, 1, 4, 1, 1, 0),
	RAW(BGRA8888, ABGR32, false, 1, 4, 1, 1, 0),
	RAW(RGBA8888, RGBA32, false, 1, 4, 1, 1, 0),
	CODED(MPEG2),
	CODED(MPEG4),
	CODED(H264),
	CODED(HEVC),
	CODED(VP8),
	CODED(VP9),
};

const struct vv_pixel *vv_pixel_find(u32 wire, bool per_plane)
{
	u32 i;

	for (i = 0; i < ARRAY_SIZE(vv_pixels); i++)
		if (vv_pixels[i].wire == wire &&
		    vv_pixels[i].per_plane == per_plane)
			return &vv_pixels[i];
	return NULL;
}

struct vv_format *vv_format_find(struct vv_device *vv, enum vv_side side,
				 u32 fourcc)
{
	struct vv_formats *all = &vv->formats[side];
	u32 i;

	for (i = 0; i < all->num; i++)
		if (all->formats[i].pixel->fourcc == fourcc)
			return &all->formats[i];
	return NULL;
}

/* A side that names no partner at all leaves it to the other one. */
bool vv_format_goes_with(struct vv_device *vv, const struct vv_format *raw,
			 const struct vv_format *coded)
{
	return (!raw->mask || raw->mask & BIT_ULL(coded->number)) &&
	       (!coded->mask || coded->mask & BIT_ULL(raw->number));
}

/* The next value of the range that is not less, if there is one. */
u32 vv_range_fit(const struct vv_range *range, u32 value)
{
	u32 steps;

	if (value <= range->min)
		return range->min;
	if (value >= range->max)
		return range->max;
	steps = DIV_ROUND_UP(value - range->min, range->step);
	return min(range->min + steps * range->step, range->max);
}

static u32 vv_stride(const struct vv_format *format, u32 width)
{
	const struct vv_pixel *pixel = format->pixel;
	u32 align = max_t(u32, format->align, 1);

	/* So that half of it is whole, where a component needs that. */
	align = max_t(u32, align, pixel->hdiv);
	return ALIGN(width * pixel->bytes, align);
}

static u64 vv_component_size(const struct vv_pixel *pixel, u32 number,
			     u32 stride, u32 height)
{
	if (!number)
		return (u64)stride * height;
	return (u64)(stride / pixel->hdiv * pixel->interleaved) *
	       DIV_ROUND_UP(height, pixel->vdiv);
}

static u64 vv_picture_plane_size(const struct vv_pixel *pixel, u32 plane,
				 u32 stride, u32 height)
{
	u64 size = 0;
	u32 i;

	if (pixel->per_plane)
		return vv_component_size(pixel, plane, stride, height);
	for (i = 0; i < pixel->components; i++)
		size += vv_component_size(pixel, i, stride, height);
	return size;
}

static u32 vv_plane_stride(const struct vv_pixel *pixel, u32 plane, u32 stride)
{
	return plane ? stride / pixel->hdiv * pixel->interleaved : stride;
}

/* Strides and sizes for a width and a height. */
void vv_picture_lay_out(const struct vv_format *format,
			struct v4l2_pix_format_mplane *pix)
{
	const struct vv_pixel *pixel = format->pixel;
	u32 stride = vv_stride(format, pix->width);
	u32 plane;

	pix->num_planes = pixel->per_plane ? pixel->components : 1;
	for (plane = 0; plane < pix->num_planes; plane++) {
		pix->plane_fmt[plane].bytesperline =
			vv_plane_stride(pixel, plane, stride);
		pix->plane_fmt[plane].sizeimage =
			vv_picture_plane_size(pixel, plane, stride,
					      pix->height);
	}
}

/* Whether a picture that the device describes has room for its own samples. */
bool vv_picture_is_sound(const struct vv_format *format,
			 const struct v4l2_pix_format_mplane *pix)
{
	const struct vv_pixel *pixel = format->pixel;
	u32 planes = pixel->per_plane ? pixel->components : 1;
	u32 plane;

	if (!pix->width || !pix->height || pix->num_planes != planes ||
	    pix->width > U16_MAX || pix->height > U16_MAX)
		return false;
	for (plane = 0; plane < planes; plane++) {
		const struct v4l2_plane_pix_format *p = &pix->plane_fmt[plane];
		u32 stride = plane ? p->bytesperline * pixel->hdiv /
				     max_t(u32, pixel->interleaved, 1) :
				     p->bytesperline;

		if (!p->sizeimage || p->sizeimage > VV_LARGEST_PLANE)
			return false;
		if (pixel->coded)
			continue;
		if (p->bytesperline > SZ_1M ||
		    stride < pix->width * pixel->bytes ||
		    p->sizeimage < vv_picture_plane_size(pixel, plane, stride,
							 pix->height))
			return false;
	}
	return true;
}

static void vv_try_both(const struct vv_format *format,
			struct v4l2_pix_format_mplane *pix)
{
	pix->pixelformat = format->pixel->fourcc;
	pix->field = V4L2_FIELD_NONE;
	pix->flags = 0;
	pix->width = vv_range_fit(&format->width, pix->width);
	pix->height = vv_range_fit(&format->height, pix->height);
	memset(pix->reserved, 0, sizeof(pix->reserved));
}

void vv_try_coded(const struct vv_format *format,
		  struct v4l2_pix_format_mplane *pix)
{
	u32 wanted = pix->num_planes ? pix->plane_fmt[0].sizeimage : 0;
	u32 least;

	vv_try_both(format, pix);
	least = clamp_t(u32, pix->width * pix->height, VV_SMALLEST_CODED,
			VV_LARGEST_CODED);
	memset(pix->plane_fmt, 0, sizeof(pix->plane_fmt));
	pix->num_planes = 1;
	pix->plane_fmt[0].sizeimage =
		ALIGN(clamp_t(u32, wanted, least, VV_LARGEST_CODED), SZ_4K);
}

void vv_try_raw(const struct vv_format *format,
		struct v4l2_pix_format_mplane *pix)
{
	vv_try_both(format, pix);
	/* Components of other sizes want whole samples. */
	pix->width = ALIGN(pix->width, format->pixel->hdiv);
	pix->height = ALIGN(pix->height, format->pixel->vdiv);
	memset(pix->plane_fmt, 0, sizeof(pix->plane_fmt));
	vv_picture_lay_out(format, pix);
}
