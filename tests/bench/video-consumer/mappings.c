// SPDX-License-Identifier: Apache-2.0
/*
 * mappings DEVICE ROUNDS: a camera's buffers that are the device's own, mapped in
 * all ways that a kernel has to count: a child process has them too, half of one
 * is unmapped before the rest, and a buffer is seen after it was given up. What
 * is seen is the picture that came, everywhere. Each round maps three times, so
 * with enough of them a mapping that nobody takes back is missed.
 *
 * Programs for cameras map their buffers once, and unmap them when they end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <linux/videodev2.h>

#define TYPE V4L2_BUF_TYPE_VIDEO_CAPTURE

static int video;

static void fail(const char *what)
{
	fprintf(stderr, "%s: %s\n", what, strerror(errno));
	exit(1);
}

static void must(int holds, const char *otherwise)
{
	if (holds)
		return;
	fprintf(stderr, "%s\n", otherwise);
	exit(1);
}

static void ask(unsigned long request, void *argument, const char *what)
{
	if (ioctl(video, request, argument))
		fail(what);
}

static void buffers(unsigned int count)
{
	struct v4l2_requestbuffers request = { .type = TYPE, .count = count, .memory = V4L2_MEMORY_MMAP };

	ask(VIDIOC_REQBUFS, &request, "REQBUFS");
	must(request.count == count, "another number of buffers");
}

static struct v4l2_buffer named(unsigned int index)
{
	struct v4l2_buffer b = { .type = TYPE, .memory = V4L2_MEMORY_MMAP, .index = index };

	return b;
}

/* What a program may not make of a mapping. */
static void bounds(const struct v4l2_buffer *b)
{
	long page = sysconf(_SC_PAGESIZE);
	unsigned char *read_only;

	must(mmap(NULL, b->length + page, PROT_READ, MAP_SHARED, video, b->m.offset) == MAP_FAILED,
	     "more was mapped than the buffer has");
	read_only = mmap(NULL, b->length, PROT_READ, MAP_SHARED, video, b->m.offset);
	if (read_only == MAP_FAILED)
		fail("mmap to read");
	must(mprotect(read_only, b->length, PROT_READ | PROT_WRITE) && errno == EACCES,
	     "what was mapped to be read can be written");
	must(mremap(read_only, b->length, b->length + page, MREMAP_MAYMOVE) == MAP_FAILED,
	     "a mapping grew beyond its buffer");
	munmap(read_only, b->length);
}

static void in_a_child(const unsigned char *seen, const unsigned char *picture, size_t len)
{
	int status;
	pid_t child = fork();

	if (child < 0)
		fail("fork");
	if (!child)
		_exit(memcmp(seen, picture, len) != 0);
	must(waitpid(child, &status, 0) == child && status == 0, "a child sees another picture");
}

static void round_trip(int last)
{
	size_t half = sysconf(_SC_PAGESIZE) * 3;
	unsigned char *memory[2], *picture;
	struct v4l2_buffer b;
	unsigned int i;
	int type = TYPE;

	buffers(2);
	for (i = 0; i < 2; i++) {
		b = named(i);
		ask(VIDIOC_QUERYBUF, &b, "QUERYBUF");
		memory[i] = mmap(NULL, b.length, PROT_READ | PROT_WRITE, MAP_SHARED, video, b.m.offset);
		if (memory[i] == MAP_FAILED)
			fail("mmap");
		/* Nothing of an earlier picture is taken for one. */
		memset(memory[i], 0xa5, b.length);
	}
	bounds(&b);
	for (i = 0; i < 2; i++) {
		b = named(i);
		ask(VIDIOC_QBUF, &b, "QBUF");
	}
	ask(VIDIOC_STREAMON, &type, "STREAMON");
	b = named(0);
	ask(VIDIOC_DQBUF, &b, "DQBUF");
	must(b.index == 0 && b.bytesused > 2 * half && b.bytesused <= b.length, "no whole picture in the first buffer");
	picture = malloc(b.bytesused);
	if (!picture)
		fail("memory");
	memcpy(picture, memory[0], b.bytesused);
	must(picture[0] != 0xa5, "nothing was put into the buffer");
	in_a_child(memory[0], picture, b.bytesused);
	munmap(memory[0] + half, b.length - half);
	must(!memcmp(memory[0], picture, half), "another picture in what is left of the mapping");
	ask(VIDIOC_STREAMOFF, &type, "STREAMOFF");
	buffers(0);
	must(!memcmp(memory[0], picture, half), "another picture after the buffers were given up");
	if (last && fwrite(picture, 1, b.bytesused, stdout) != b.bytesused)
		fail("the picture");
	munmap(memory[0], half);
	munmap(memory[1], b.length);
	free(picture);
}

int main(int argc, char **argv)
{
	struct v4l2_exportbuffer export = { .type = TYPE };
	int i, rounds;

	if (argc != 3)
		return 2;
	video = open(argv[1], O_RDWR);
	if (video < 0)
		fail(argv[1]);
	must(ioctl(video, VIDIOC_EXPBUF, &export) && errno == ENOTTY, "the buffers are not the device's own");
	rounds = atoi(argv[2]);
	for (i = 0; i < rounds; i++)
		round_trip(i == rounds - 1);
	return 0;
}
