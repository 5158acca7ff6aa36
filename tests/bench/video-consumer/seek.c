// SPDX-License-Identifier: Apache-2.0
/*
 * seek DEVICE FILE FRAMES [WIDTH HEIGHT LEFT TOP]: decode FILE (units behind
 * their lengths, as v4l2-ctl has them) on a stateful H.264 decoder; after FRAMES
 * pictures go back to its beginning, the way V4L2 has it: the queue of the
 * bitstream is stopped and started, the other one not. Writes what is decoded
 * from then on, NV12 without padding. With a size and a place pictures are put
 * there in larger buffers, and nothing else of these may be written.
 *
 * No program of Debian's seeks in a decoder's stream without starting it anew,
 * nor places its pictures.
 */
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
#include <arpa/inet.h>
#include <linux/videodev2.h>

#define IN V4L2_BUF_TYPE_VIDEO_OUTPUT_MPLANE
#define OUT V4L2_BUF_TYPE_VIDEO_CAPTURE_MPLANE
#define MOST 32
#define PATIENCE_MS 60000
/* What buffers have around a picture. */
#define AROUND 0xa5

static int video;
static unsigned char *stream;
static size_t stream_len, at;
static void *in_memory[MOST], *out_memory[MOST];
static unsigned int in_count, out_count, in_size;
static struct v4l2_format picture = { .type = OUT };
static struct v4l2_rect seen;
/* Where pictures are wanted, if somewhere: width and height of buffers, left, top. */
static unsigned int wish[4];
static int again, stopped;
static long units, decoded, written;

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

static unsigned int allocate(unsigned int type, unsigned int count, void **memory)
{
	struct v4l2_requestbuffers request = { .type = type, .count = count, .memory = V4L2_MEMORY_MMAP };
	unsigned int i;

	ask(VIDIOC_REQBUFS, &request, "REQBUFS");
	for (i = 0; i < request.count; i++) {
		struct v4l2_plane plane = { 0 };
		struct v4l2_buffer b = { .type = type, .memory = V4L2_MEMORY_MMAP, .index = i, .m.planes = &plane, .length = 1 };

		ask(VIDIOC_QUERYBUF, &b, "QUERYBUF");
		memory[i] = mmap(NULL, plane.length, PROT_READ | PROT_WRITE, MAP_SHARED, video, plane.m.mem_offset);
		if (memory[i] == MAP_FAILED)
			fail("mmap");
		if (type == IN)
			in_size = plane.length;
		else
			memset(memory[i], AROUND, plane.length);
	}
	return request.count;
}

static void queue(unsigned int type, unsigned int index, unsigned int bytes)
{
	struct v4l2_plane plane = { .bytesused = bytes };
	struct v4l2_buffer b = { .type = type, .memory = V4L2_MEMORY_MMAP, .index = index, .m.planes = &plane, .length = 1 };

	/* The second time round is told from the first by the time. */
	b.timestamp.tv_sec = again + 1;
	b.timestamp.tv_usec = type == IN ? ++units : 0;
	ask(VIDIOC_QBUF, &b, "QBUF");
}

/* The next unit into this buffer; at the end, ask for the rest. */
static void feed(unsigned int index)
{
	uint32_t len;

	if (at + 8 > stream_len) {
		struct v4l2_decoder_cmd stop = { .cmd = V4L2_DEC_CMD_STOP };

		/* The first time round is left before its end. */
		if (again && !stopped++)
			ask(VIDIOC_DECODER_CMD, &stop, "STOP");
		return;
	}
	memcpy(&len, stream + at + 4, sizeof(len));
	len = ntohl(len);
	if (len > in_size || at + 8 + len > stream_len) {
		fprintf(stderr, "a unit of %u bytes\n", len);
		exit(1);
	}
	memcpy(in_memory[index], stream + at + 8, len);
	at += 8 + len;
	queue(IN, index, len);
}

static void seek(void)
{
	int type = IN;
	unsigned int i;

	ask(VIDIOC_STREAMOFF, &type, "STREAMOFF");
	again = 1;
	at = 0;
	ask(VIDIOC_STREAMON, &type, "STREAMON");
	for (i = 0; i < in_count; i++)
		feed(i);
}

/* Writes a piece of a picture and leaves nothing of it behind. */
static void write_piece(unsigned char *from, unsigned int bytes)
{
	fwrite(from, 1, bytes, stdout);
	memset(from, AROUND, bytes);
}

static void write_picture(unsigned char *from, unsigned int bytes)
{
	unsigned int stride = picture.fmt.pix_mp.plane_fmt[0].bytesperline;
	unsigned int height = picture.fmt.pix_mp.height, row, i;
	unsigned int width = (seen.width + 1) / 2 * 2;

	for (row = 0; row < seen.height; row++)
		write_piece(from + (seen.top + row) * stride + seen.left, seen.width);
	for (row = 0; row < (seen.height + 1) / 2; row++)
		write_piece(from + (height + seen.top / 2 + row) * stride + seen.left, width);
	for (i = 0; wish[0] && i < bytes; i++) {
		if (from[i] == AROUND)
			continue;
		fprintf(stderr, "byte %u beside the picture was written\n", i);
		exit(1);
	}
}

static void place_pictures(void)
{
	struct v4l2_selection selection = { .type = OUT, .target = V4L2_SEL_TGT_COMPOSE };
	struct v4l2_rect place;

	picture.fmt.pix_mp.width = wish[0];
	picture.fmt.pix_mp.height = wish[1];
	ask(VIDIOC_S_FMT, &picture, "S_FMT");
	ask(VIDIOC_G_SELECTION, &selection, "G_SELECTION");
	selection.r.left = wish[2];
	selection.r.top = wish[3];
	place = selection.r;
	ask(VIDIOC_S_SELECTION, &selection, "S_SELECTION");
	if (picture.fmt.pix_mp.width == wish[0] && picture.fmt.pix_mp.height == wish[1] &&
	    !memcmp(&place, &selection.r, sizeof(place)))
		return;
	fprintf(stderr, "pictures come to %d,%d in %ux%u\n", selection.r.left, selection.r.top,
		picture.fmt.pix_mp.width, picture.fmt.pix_mp.height);
	exit(1);
}

static void set_up_pictures(void)
{
	struct v4l2_selection selection = { .type = OUT, .target = V4L2_SEL_TGT_COMPOSE };
	struct v4l2_control least = { .id = V4L2_CID_MIN_BUFFERS_FOR_CAPTURE };
	struct v4l2_event event;
	unsigned int i;
	int type = OUT;

	ask(VIDIOC_DQEVENT, &event, "DQEVENT");
	if (out_count)
		return;
	ask(VIDIOC_G_FMT, &picture, "G_FMT");
	if (wish[0])
		place_pictures();
	ask(VIDIOC_G_SELECTION, &selection, "G_SELECTION");
	ask(VIDIOC_G_CTRL, &least, "G_CTRL");
	seen = selection.r;
	out_count = allocate(OUT, least.value + 3, out_memory);
	for (i = 0; i < out_count; i++)
		queue(OUT, i, 0);
	ask(VIDIOC_STREAMON, &type, "STREAMON");
}

/* A picture, if there is one; 1 at the end. */
static int take_picture(long frames)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = OUT, .memory = V4L2_MEMORY_MMAP, .m.planes = &plane, .length = 1 };

	if (!out_count || ioctl(video, VIDIOC_DQBUF, &b)) {
		if (!out_count || errno == EAGAIN)
			return 0;
		fail("DQBUF");
	}
	if (b.flags & V4L2_BUF_FLAG_ERROR) {
		fprintf(stderr, "a picture with an error\n");
		exit(1);
	}
	if (plane.bytesused) {
		decoded++;
		if (b.timestamp.tv_sec == 2) {
			write_picture(out_memory[b.index], plane.bytesused);
			written++;
		}
	}
	if (b.flags & V4L2_BUF_FLAG_LAST)
		return 1;
	queue(OUT, b.index, 0);
	if (!again && decoded == frames)
		seek();
	return 0;
}

static void take_unit(void)
{
	struct v4l2_plane plane = { 0 };
	struct v4l2_buffer b = { .type = IN, .memory = V4L2_MEMORY_MMAP, .m.planes = &plane, .length = 1 };

	if (!ioctl(video, VIDIOC_DQBUF, &b))
		feed(b.index);
	else if (errno != EAGAIN)
		fail("DQBUF");
}

int main(int argc, char **argv)
{
	struct v4l2_event_subscription change = { .type = V4L2_EVENT_SOURCE_CHANGE };
	struct v4l2_format coded = { .type = IN };
	struct stat status;
	unsigned int i;
	int file, type = IN;

	if (argc != 4 && argc != 8)
		return 2;
	for (i = 4; i < (unsigned int)argc; i++)
		wish[i - 4] = atoi(argv[i]);
	file = open(argv[2], O_RDONLY);
	if (file < 0 || fstat(file, &status))
		fail(argv[2]);
	stream_len = status.st_size;
	stream = malloc(stream_len);
	if (!stream || read(file, stream, stream_len) != (ssize_t)stream_len)
		fail(argv[2]);
	video = open(argv[1], O_RDWR | O_NONBLOCK);
	if (video < 0)
		fail(argv[1]);
	coded.fmt.pix_mp.pixelformat = V4L2_PIX_FMT_H264;
	coded.fmt.pix_mp.num_planes = 1;
	ask(VIDIOC_S_FMT, &coded, "S_FMT");
	ask(VIDIOC_SUBSCRIBE_EVENT, &change, "SUBSCRIBE_EVENT");
	in_count = allocate(IN, 4, in_memory);
	for (i = 0; i < in_count; i++)
		feed(i);
	ask(VIDIOC_STREAMON, &type, "STREAMON");
	for (;;) {
		struct pollfd ready = { .fd = video, .events = POLLIN | POLLOUT | POLLPRI };

		if (poll(&ready, 1, PATIENCE_MS) != 1) {
			fprintf(stderr, "nothing within %d s, after %ld pictures\n", PATIENCE_MS / 1000, decoded);
			return 1;
		}
		if (ready.revents & POLLPRI)
			set_up_pictures();
		if (ready.revents & POLLOUT)
			take_unit();
		if (ready.revents & POLLIN && take_picture(atol(argv[3])))
			break;
		if (ready.revents == POLLERR) {
			fprintf(stderr, "the device is gone\n");
			return 1;
		}
	}
	fprintf(stderr, "%ld pictures, %ld of them from the beginning again\n", decoded, written);
	return fflush(stdout) ? 1 : 0;
}
