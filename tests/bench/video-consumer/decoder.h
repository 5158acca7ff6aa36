/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What programs of these tests have in common that have a stateful H.264 decoder
 * decode a file (units behind their lengths, as v4l2-ctl has them): its way in,
 * and the loop. What is done with pictures is each program's own.
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
#define MOST 32
#define INPUTS 4
#define PATIENCE_MS 60000

static int video;
static unsigned char *stream;
static size_t stream_len, at;
static void *in_memory[MOST];
static unsigned int in_count, in_size;
/* Which time round it is, from 0 on: buffers are told apart by it. */
static int again;
/* Whether the stream is left before its end, this time. */
static int leaves;
static int stopped;
static long units;

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

/* Buffers of the decoder's driver, of which each is mapped; how many there are. */
static unsigned int allocate(unsigned int type, unsigned int count, void **memory, unsigned int *size)
{
	struct v4l2_requestbuffers request = { .type = type, .count = count, .memory = V4L2_MEMORY_MMAP };
	unsigned int i;

	ask(VIDIOC_REQBUFS, &request, "REQBUFS");
	for (i = 0; i < request.count; i++) {
		struct v4l2_plane plane = { 0 };
		struct v4l2_buffer b = { .type = type, .memory = V4L2_MEMORY_MMAP, .index = i, .m.planes = &plane, .length = 1 };

		ask(VIDIOC_QUERYBUF, &b, "QUERYBUF");
		*size = plane.length;
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

	b.timestamp.tv_sec = again + 1;
	b.timestamp.tv_usec = type == IN ? ++units : 0;
	ask(VIDIOC_QBUF, &b, "QBUF");
}

/* The next unit into this buffer; at the end, ask for the rest. */
static void feed(unsigned int index)
{
	struct v4l2_decoder_cmd stop = { .cmd = V4L2_DEC_CMD_STOP };
	uint32_t len;

	if (at + 8 > stream_len) {
		if (!leaves && !stopped++)
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

/* From the beginning of the file. */
static void feed_all(void)
{
	unsigned int i;

	at = 0;
	for (i = 0; i < in_count; i++)
		feed(i);
}

static void open_stream(const char *device, const char *path)
{
	struct v4l2_event_subscription change = { .type = V4L2_EVENT_SOURCE_CHANGE };
	struct v4l2_format coded = { .type = IN };
	struct stat status;
	int file = open(path, O_RDONLY), type = IN;

	if (file < 0 || fstat(file, &status))
		fail(path);
	stream_len = status.st_size;
	stream = malloc(stream_len);
	if (!stream || read(file, stream, stream_len) != (ssize_t)stream_len)
		fail(path);
	video = open(device, O_RDWR | O_NONBLOCK);
	if (video < 0)
		fail(device);
	coded.fmt.pix_mp.pixelformat = V4L2_PIX_FMT_H264;
	coded.fmt.pix_mp.num_planes = 1;
	ask(VIDIOC_S_FMT, &coded, "S_FMT");
	ask(VIDIOC_SUBSCRIBE_EVENT, &change, "SUBSCRIBE_EVENT");
	in_count = allocate(IN, INPUTS, in_memory, &in_size);
	feed_all();
	ask(VIDIOC_STREAMON, &type, "STREAMON");
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

/* Until take() says that a picture was the last one. set_up() follows the header. */
static void decode(void (*set_up)(void), int (*take)(void))
{
	for (;;) {
		struct pollfd ready = { .fd = video, .events = POLLIN | POLLOUT | POLLPRI };

		if (poll(&ready, 1, PATIENCE_MS) != 1) {
			fprintf(stderr, "nothing within %d s, after %ld units\n", PATIENCE_MS / 1000, units);
			exit(1);
		}
		if (ready.revents & POLLPRI)
			set_up();
		if (ready.revents & POLLOUT)
			take_unit();
		if (ready.revents & POLLIN && take())
			return;
		if (ready.revents == POLLERR) {
			fprintf(stderr, "the device is gone\n");
			exit(1);
		}
	}
}
