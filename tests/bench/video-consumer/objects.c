// SPDX-License-Identifier: Apache-2.0
/*
 * objects DEVICE FILE COUNT: decode FILE (units behind their lengths, as v4l2-ctl
 * has them) on a stateful H.264 decoder into COUNT objects of another virtio
 * device, whose names are "object" and their numbers. A picture stays where it
 * is; said is which object has it, and how pictures lie there.
 *
 * No program of Debian's has such buffers without a virtio-gpu.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/videodev2.h>

#define IN V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE
#define OUT V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
#define INPUTS 4
#define PATIENCE_MS 60000

/* Of the module object_exporter. */
struct object_wish {
	uint8_t uuid[16];
	uint64_t size;
};
#define OBJECT_EXPORT _IOW('o', 1, struct object_wish)

static int video, exporter;
static unsigned char *stream;
static size_t stream_len, at;
static void *memory[INPUTS];
static unsigned int in_size, objects;
static int stopped;

static void fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	exit(1);
}

static void ask(unsigned long request, void *argument, const char *what)
{
	if (ioctl(video, request, argument))
		fail(what);
}

static void feed(unsigned int index)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = IN, .memory = V4L2_MEMORY_MMAP, .index = index, .m.planes = &plane, .length = 1 };
	struct v4l2_decoder_cmd stop = { .cmd = V4L2_DEC_CMD_STOP };
	uint32_t len;

	if (at + 8 > stream_len) {
		if (!stopped++)
			ask(VIDIOC_DECODER_CMD, &stop, "STOP");
		return;
	}
	memcpy(&len, stream + at + 4, sizeof(len));
	len = ntohl(len);
	if (len > in_size || at + 8 + len > stream_len) {
		printf("a unit of %u bytes\n", len);
		exit(1);
	}
	memcpy(memory[index], stream + at + 8, len);
	at += 8 + len;
	plane.bytesused = len;
	ask(VIDIOC_QBUF, &b, "QBUF of the stream");
}

static void inputs(void)
{
	struct v4l2_requestbuffers request = { .type = IN, .count = INPUTS, .memory = V4L2_MEMORY_MMAP };
	unsigned int i;
	int type = IN;

	ask(VIDIOC_REQBUFS, &request, "REQBUFS of the stream");
	for (i = 0; i < INPUTS; i++) {
		struct v4l2_plane plane = { 0 };
		struct v4l2_buffer b = { .type = IN, .memory = V4L2_MEMORY_MMAP, .index = i, .m.planes = &plane, .length = 1 };

		ask(VIDIOC_QUERYBUF, &b, "QUERYBUF");
		in_size = plane.length;
		memory[i] = mmap(NULL, plane.length, PROT_READ | PROT_WRITE, MAP_SHARED, video, plane.m.mem_offset);
		if (memory[i] == MAP_FAILED)
			fail("mmap");
		feed(i);
	}
	ask(VIDIOC_STREAMON, &type, "STREAMON");
}

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

static void take_unit(void)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = IN, .memory = V4L2_MEMORY_MMAP, .m.planes = &plane, .length = 1 };

	if (!ioctl(video, VIDIOC_DQBUF, &b))
		feed(b.index);
	else if (errno != EAGAIN)
		fail("DQBUF of the stream");
}

int main(int argc, char **argv)
{
	struct v4l2_event_subscription change = { .type = V4L2_EVENT_SOURCE_CHANGE };
	struct v4l2_format coded = { .type = IN };
	struct stat status;
	int file;

	if (argc != 4)
		return 2;
	objects = atoi(argv[3]);
	file = open(argv[2], O_RDONLY);
	if (file < 0 || fstat(file, &status))
		fail(argv[2]);
	stream_len = status.st_size;
	stream = malloc(stream_len);
	if (!stream || read(file, stream, stream_len) != (ssize_t)stream_len)
		fail(argv[2]);
	exporter = open("/dev/object-exporter", O_RDWR);
	video = open(argv[1], O_RDWR | O_NONBLOCK);
	if (exporter < 0 || video < 0)
		fail(argv[1]);
	coded.fmt.pix_mp.pixelformat = V4L2_PIX_FMT_H264;
	coded.fmt.pix_mp.num_planes = 1;
	ask(VIDIOC_S_FMT, &coded, "S_FMT");
	ask(VIDIOC_SUBSCRIBE_EVENT, &change, "SUBSCRIBE_EVENT");
	inputs();
	for (;;) {
		struct pollfd ready = { .fd = video, .events = POLLIN | POLLOUT | POLLPRI };

		if (poll(&ready, 1, PATIENCE_MS) != 1) {
			printf("nothing within %d s\n", PATIENCE_MS / 1000);
			return 1;
		}
		if (ready.revents & POLLPRI)
			outputs();
		if (ready.revents & POLLOUT)
			take_unit();
		if (ready.revents & POLLIN && take_picture())
			return 0;
		if (ready.revents == POLLERR) {
			printf("the device is gone\n");
			return 1;
		}
	}
}
