// SPDX-License-Identifier: Apache-2.0
/*
 * crop DEVICE FILE WIDTH HEIGHT LEFT TOP ROOM_WIDTH ROOM_HEIGHT: encode what lies
 * in a rectangle of each picture in FILE (I420 without padding, of the room's
 * size) as H.264 on a stateful encoder, and write the stream.
 *
 * v4l2-ctl takes a rectangle for the size of what it reads, and GStreamer has
 * none.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <linux/videodev2.h>

#define IN V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE
#define OUT V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
#define BUFFERS 4
#define MOST 32
#define PATIENCE_MS 60000

static int video;
static FILE *pictures;
static unsigned char *in_memory[MOST], *out_memory[MOST];
static struct v4l2_format raw = { .type = IN };
static int stopped;
static long read_in, written;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void ask(unsigned long request, void *argument, const char *what)
{
	if (ioctl(video, request, argument))
		fail(what);
}

static unsigned int allocate(unsigned int type, unsigned char **memory)
{
	struct v4l2_requestbuffers request = { .type = type, .count = BUFFERS, .memory = V4L2_MEMORY_MMAP };
	unsigned int i;

	ask(VIDIOC_REQBUFS, &request, "REQBUFS");
	for (i = 0; i < request.count; i++) {
		struct v4l2_plane plane = { 0 };
		struct v4l2_buffer b = { .type = type, .memory = V4L2_MEMORY_MMAP, .index = i, .m.planes = &plane, .length = 1 };

		ask(VIDIOC_QUERYBUF, &b, "QUERYBUF");
		memory[i] = mmap(NULL, plane.length, PROT_READ | PROT_WRITE, MAP_SHARED, video, plane.m.mem_offset);
		if (memory[i] == MAP_FAILED)
			fail("mmap");
	}
	return request.count;
}

static void queue(unsigned int type, unsigned int index, unsigned int bytes)
{
	struct v4l2_plane plane = { .bytesused = bytes };
	struct v4l2_buffer b = { .type = type, .memory = V4L2_MEMORY_MMAP, .index = index, .m.planes = &plane, .length = 1 };

	ask(VIDIOC_QBUF, &b, "QBUF");
}

/* The next picture into this buffer; after the last one, ask for the rest. */
static void feed(unsigned int index)
{
	const struct v4l2_pix_format_mplane *pix = &raw.fmt.pix_mp;
	unsigned int stride = pix->plane_fmt[0].bytesperline, plane, row;
	unsigned char *to = in_memory[index];

	for (plane = 0; plane < 3; plane++) {
		unsigned int half = plane ? 2 : 1;

		for (row = 0; row < pix->height / half; row++, to += stride / half) {
			struct v4l2_encoder_cmd stop = { .cmd = V4L2_ENC_CMD_STOP };

			if (fread(to, 1, pix->width / half, pictures) == pix->width / half)
				continue;
			if (!stopped++)
				ask(VIDIOC_ENCODER_CMD, &stop, "STOP");
			return;
		}
	}
	read_in++;
	queue(IN, index, pix->plane_fmt[0].sizeimage);
}

static int take(unsigned int type)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = type, .memory = V4L2_MEMORY_MMAP, .m.planes = &plane, .length = 1 };

	if (ioctl(video, VIDIOC_DQBUF, &b)) {
		if (errno == EAGAIN)
			return 0;
		fail("DQBUF");
	}
	if (type == IN) {
		feed(b.index);
		return 0;
	}
	if (plane.bytesused) {
		fwrite(out_memory[b.index], 1, plane.bytesused, stdout);
		written++;
	}
	if (b.flags & V4L2_BUF_FLAG_LAST)
		return 1;
	queue(OUT, b.index, 0);
	return 0;
}

static void agree(unsigned int *numbers)
{
	struct v4l2_format coded = { .type = OUT, .fmt.pix_mp = { .pixelformat = V4L2_PIX_FMT_H264, .num_planes = 1 } };
	struct v4l2_selection crop = { .type = IN, .target = V4L2_SEL_TGT_CROP };
	struct v4l2_rect wish = { .left = numbers[2], .top = numbers[3], .width = numbers[0], .height = numbers[1] };

	ask(VIDIOC_S_FMT, &coded, "S_FMT");
	raw.fmt.pix_mp.pixelformat = V4L2_PIX_FMT_YUV420;
	raw.fmt.pix_mp.width = numbers[4];
	raw.fmt.pix_mp.height = numbers[5];
	ask(VIDIOC_S_FMT, &raw, "S_FMT");
	crop.r = wish;
	ask(VIDIOC_S_SELECTION, &crop, "S_SELECTION");
	ask(VIDIOC_G_FMT, &coded, "G_FMT");
	if (!memcmp(&crop.r, &wish, sizeof(wish)) && coded.fmt.pix_mp.width == wish.width &&
	    coded.fmt.pix_mp.height == wish.height)
		return;
	fprintf(stderr, "the rectangle is %ux%u at %d,%d\n", crop.r.width, crop.r.height, crop.r.left, crop.r.top);
	exit(1);
}

int main(int argc, char **argv)
{
	unsigned int numbers[6], i, count;
	int type;

	if (argc != 9)
		return 2;
	for (i = 0; i < 6; i++)
		numbers[i] = atoi(argv[3 + i]);
	pictures = fopen(argv[2], "r");
	video = open(argv[1], O_RDWR | O_NONBLOCK);
	if (!pictures || video < 0)
		fail(pictures ? argv[1] : argv[2]);
	agree(numbers);
	count = allocate(OUT, out_memory);
	for (i = 0; i < count; i++)
		queue(OUT, i, 0);
	count = allocate(IN, in_memory);
	for (i = 0; i < count; i++)
		feed(i);
	type = OUT;
	ask(VIDIOC_STREAMON, &type, "STREAMON");
	type = IN;
	ask(VIDIOC_STREAMON, &type, "STREAMON");
	for (;;) {
		struct pollfd ready = { .fd = video, .events = POLLIN | POLLOUT };

		if (poll(&ready, 1, PATIENCE_MS) != 1 || ready.revents == POLLERR) {
			fprintf(stderr, "nothing after %ld pictures\n", written);
			return 1;
		}
		if (ready.revents & POLLOUT)
			take(IN);
		if (ready.revents & POLLIN && take(OUT))
			break;
	}
	fprintf(stderr, "%ld of %ld pictures\n", written, read_in);
	return fflush(stdout) ? 1 : 0;
}
