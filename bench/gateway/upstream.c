/*
 * A mock of an inference server for bench/gateway: one thread, epoll, HTTP/1.1 with keep-alive.
 *
 * A POST is answered with 979 bytes of JSON at once; one whose body holds `"stream":true` with events of 230 bytes, each
 * with the clock in it (`"t":` nanoseconds, CLOCK_MONOTONIC), one every `seed` milliseconds, `max_tokens` of them.
 * Reads bodies by Content-Length only. usage: upstream PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#define ANSWER 979
#define EVENT 230
#define HEAD_MOST 16384

struct conn {
  int fd, slot;
  char head[HEAD_MOST + 1];
  size_t used, skip;
  uint64_t next, interval;
  long left;
};

static struct conn **streams;
static int nstreams, capacity;
static char answer[4096];
static size_t answer_length;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void make_answer(void) {
  char body[ANSWER + 1];
  int n = snprintf(body, sizeof body,
    "{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion\",\"created\":1,\"model\":\"m\",\"usage\":{\"prompt_tokens\":200,"
    "\"completion_tokens\":100,\"total_tokens\":300},\"choices\":[{\"index\":0,\"finish_reason\":\"stop\",\"message\":"
    "{\"role\":\"assistant\",\"content\":\"");
  memset(body + n, 'a', ANSWER - n);
  memcpy(body + ANSWER - 5, "\"}}]}", 5);
  answer_length = (size_t)snprintf(answer, sizeof answer,
    "HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: %d\r\n"
    "content-type: application/json\r\n\r\n%.*s", ANSWER, ANSWER, body);
}

static void drop(struct conn *c) {
  if (c->slot >= 0) {
    streams[c->slot] = streams[--nstreams];
    streams[c->slot]->slot = c->slot;
  }
  close(c->fd);
  free(c);
}

static int put(int fd, const char *bytes, size_t length) {
  return write(fd, bytes, length) == (ssize_t)length ? 0 : -1;
}

static long field(const char *body, const char *name, long otherwise) {
  const char *at = strstr(body, name);
  return at ? atol(at + strlen(name)) : otherwise;
}

static int begin_stream(struct conn *c, const char *body) {
  static const char head[] = "HTTP/1.1 200 OK\r\ndate: Mon, 01 Jan 2026 00:00:00 GMT\r\nserver: uvicorn\r\n"
    "content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n";
  c->interval = (uint64_t)field(body, "\"seed\":", 20) * 1000000ull;
  c->left = field(body, "\"max_tokens\":", 100);
  c->next = now_ns() + (uint64_t)(rand() % 1000) * (c->interval / 1000);
  if (nstreams == capacity) streams = realloc(streams, sizeof *streams * (size_t)(capacity = capacity ? capacity * 2 : 256));
  c->slot = nstreams;
  streams[nstreams++] = c;
  return put(c->fd, head, sizeof head - 1);
}

static int event(struct conn *c) {
  char chunk[EVENT + 64];
  int n = snprintf(chunk, sizeof chunk, "%x\r\ndata: {\"t\":%020llu,\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\","
    "\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"logprobs\":null,\"finish_reason\":null,\"delta\":{\"content\":\"",
    EVENT, (unsigned long long)now_ns());
  int start = 4, tail = 8;
  memset(chunk + n, 'x', (size_t)(start + EVENT - tail - n));
  memcpy(chunk + start + EVENT - tail, "\"}}]}", 5);
  chunk[start + EVENT - 3] = ' ';
  memcpy(chunk + start + EVENT - 2, "\n\n\r\n", 4);
  return put(c->fd, chunk, (size_t)(start + EVENT + 2));
}

static void tick(void) {
  uint64_t now = now_ns();
  for (int i = nstreams - 1; i >= 0; i--) {
    struct conn *c = streams[i];
    int bad = 0;
    while (!bad && c->left > 0 && c->next <= now) {
      bad = event(c);
      c->next += c->interval;
      c->left--;
    }
    if (!bad && c->left == 0) {
      bad = put(c->fd, "e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n", 24);
      streams[i] = streams[--nstreams];
      streams[i]->slot = i;
      c->slot = -1;
    }
    if (bad) drop(c);
  }
}

/* Every whole request in the buffer. A body is skipped, but for what came with its head. */
static int serve(struct conn *c) {
  for (;;) {
    if (c->skip > 0) {
      size_t n = c->used < c->skip ? c->used : c->skip;
      memmove(c->head, c->head + n, c->used - n);
      c->used -= n;
      c->skip -= n;
      if (c->skip > 0) return 0;
      c->head[c->used] = 0;
      if (put(c->fd, answer, answer_length)) return -1;
      continue;
    }
    c->head[c->used] = 0;
    char *end = strstr(c->head, "\r\n\r\n");
    if (!end) return c->used == HEAD_MOST ? -1 : 0;
    char *length = strcasestr(c->head, "\r\ncontent-length:");
    size_t body = length && length < end ? strtoul(length + 17, 0, 10) : 0;
    size_t head = (size_t)(end - c->head) + 4, have = c->used - head;
    /* Small bodies are looked into, so they have to be whole. */
    if (body < 8192 && have < body) return 0;
    char kept = 0;
    if (have >= body) {
      kept = c->head[head + body];
      c->head[head + body] = 0;
    }
    int stream = body < 8192 && strstr(end, "\"stream\":true") != 0;
    int bad = stream ? begin_stream(c, end) : 0;
    if (have >= body) c->head[head + body] = kept;
    if (!stream && have >= body) bad = put(c->fd, answer, answer_length);
    if (bad) return -1;
    size_t taken = have < body ? have : body;
    c->skip = body - taken;
    memmove(c->head, c->head + head + taken, c->used - head - taken);
    c->used -= head + taken;
  }
}

int main(int argc, char **argv) {
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  make_answer();
  int door = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;
  setsockopt(door, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argc > 1 ? argv[1] : "0"))};
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (bind(door, (struct sockaddr *)&at, sizeof at) || listen(door, 4096)) return perror("listen"), 1;
  int poll = epoll_create1(0), timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct itimerspec every = {{0, 1000000}, {0, 1000000}};
  timerfd_settime(timer, 0, &every, 0);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = &door};
  epoll_ctl(poll, EPOLL_CTL_ADD, door, &e);
  e.data.ptr = &timer;
  epoll_ctl(poll, EPOLL_CTL_ADD, timer, &e);
  puts("ready");
  fflush(stdout);
  for (struct epoll_event found[256];;) {
    int n = epoll_wait(poll, found, 256, -1);
    int ticks = 0;
    for (int i = 0; i < n; i++) {
      if (found[i].data.ptr == &timer) {
        uint64_t fired;
        ticks = read(timer, &fired, sizeof fired) > 0;
        continue;
      }
      if (found[i].data.ptr == &door) {
        for (int fd; (fd = accept4(door, 0, 0, SOCK_NONBLOCK)) >= 0;) {
          struct conn *c = calloc(1, sizeof *c);
          c->fd = fd;
          c->slot = -1;
          setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
          e.data.ptr = c;
          epoll_ctl(poll, EPOLL_CTL_ADD, fd, &e);
        }
        continue;
      }
      struct conn *c = found[i].data.ptr;
      /* The rest of a long body is looked at by nobody. */
      static char rest[262144];
      if (c->skip > 0 && c->used == 0) {
        ssize_t got = read(c->fd, rest, c->skip < sizeof rest ? c->skip : sizeof rest);
        if (got < 0 && errno == EAGAIN) continue;
        if (got > 0) c->skip -= (size_t)got;
        if (got <= 0 || (c->skip == 0 && put(c->fd, answer, answer_length))) drop(c);
        continue;
      }
      ssize_t got = read(c->fd, c->head + c->used, HEAD_MOST - c->used);
      if (got < 0 && errno == EAGAIN) continue;
      if (got > 0) c->used += (size_t)got;
      if (got <= 0 || serve(c)) drop(c);
    }
    if (ticks) tick();
  }
}
