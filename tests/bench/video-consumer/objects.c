// SPDX-License-Identifier: Apache-2.0
/*
 * objects DEVICE FILE COUNT: decode FILE (units behind their lengths, as v4l2-ctl
 * has them) on a stateful H.264 decoder into COUNT objects of another virtio
 * device, whose names are "object" and their numbers. A picture stays where it
 * is; said is which object has it, and how pictures lie there.
 *
 * No program of Debian's has such buffers without a virtio-gpu.
 */
#include "decoder.h"

/* Of the module object_exporter. */
struct object_wish {
	uint8_t uuid[16];
	uint64_t size;
};
#define OBJECT_EXPORT _IOW('o', 1, struct object_wish)

static int exporter;
static unsigned int objects;

static void outputs(void)
{
	struct v4l2_requestbuffers request = { .type = OUT, .count = objects, .memory = V4L2_MEMORY_DMABUF };
	struct v4l2_format picture = { .type = OUT };
	struct v4l2_event event;
	unsigned int i;
	int type = OUT;

	ask(VIDIOC_DQEVENT, &event, "DQEVENT");
	ask(VIDIOC_G_FMT, &picture, "G_FMT");
	printf("format %u %u %u %u\n", picture.fmt.pix_mp.width, picture.fmt.pix_mp.height,
	       picture.fmt.pix_mp.plane_fmt[0].bytesperline, picture.fmt.pix_mp.plane_fmt[0].sizeimage);
	ask(VIDIOC_REQBUFS, &request, "REQBUFS of the pictures");
	for (i = 0; i < objects; i++) {
		struct v4l2_plane plane = { .length = picture.fmt.pix_mp.plane_fmt[0].sizeimage };
		struct v4l2_buffer b = { .type = OUT, .memory = V4L2_MEMORY_DMABUF, .index = i, .m.planes = &plane, .length = 1 };
		struct object_wish wish = { .size = plane.length };

		snprintf((char *)wish.uuid, sizeof(wish.uuid), "object%u", i);
		plane.m.fd = ioctl(exporter, OBJECT_EXPORT, &wish);
		if (plane.m.fd < 0)
			fail("OBJECT_EXPORT");
		ask(VIDIOC_QBUF, &b, "QBUF of an object");
		close(plane.m.fd);
	}
	ask(VIDIOC_STREAMON, &type, "STREAMON of the pictures");
}

/* Says which object has the next picture, if there is one; 1 at the end. */
static int take_picture(void)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = OUT, .memory = V4L2_MEMORY_DMABUF, .m.planes = &plane, .length = 1 };

	if (ioctl(video, VIDIOC_DQBUF, &b)) {
		if (errno == EAGAIN || errno == EINVAL)
			return 0;
		fail("DQBUF");
	}
	if (plane.bytesused)
		printf("picture %u\n", b.index);
	return !!(b.flags & V4L2_BUF_FLAG_LAST);
}

int main(int argc, char **argv)
{
	if (argc != 4)
		return 2;
	objects = atoi(argv[3]);
	exporter = open("/dev/object-exporter", O_RDWR);
	if (exporter < 0)
		fail("/dev/object-exporter");
	open_stream(argv[1], argv[2]);
	decode(outputs, take_picture);
	return 0;
}
