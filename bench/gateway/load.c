/*
 * The client of bench/gateway: one thread, epoll, HTTP/1.1 with keep-alive; answers with a length or in chunks.
 *
 * usage: load MODE PORT SECONDS CONNECTIONS BODY_FILE HEADERS [RATE [SETTLE]]
 *   sat    each connection asks again when it has its answer
 *   rate   RATE requests a second, evenly; a latency counts from when the request was due
 *   sse    each connection has one stream; the delay of an event is now less the clock in it
 *   hold   as sse, and nothing is measured
 * HEADERS: further header lines, each with its "\r\n" spelled out. After SETTLE seconds (1; hold: and when every stream
 * has had an event) prints "steady", and at the end one line of JSON.
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

#define MOST (8u << 20)

enum where { IDLE, HEAD, SIZED, CHUNK_SIZE, CHUNK, CHUNK_END, TRAILER };

struct conn {
  int fd, status, seen;
  enum where at;
  size_t sent, line, left;
  uint64_t due;
  char text[4096];
};

static char *request;
static size_t request_length;
static struct conn *conns;
static int count, streaming, measuring, seen;
static uint32_t *samples;
static size_t nsamples;
static long done, errors, bad_status;
static struct sockaddr_in target;
static int poller;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static void sample(uint64_t from) {
  if (measuring && nsamples < MOST) samples[nsamples++] = (uint32_t)((now_ns() - from) / 1000);
}

static void watch(struct conn *c, int op, uint32_t events) {
  struct epoll_event e = {.events = events, .data.ptr = c};
  epoll_ctl(poller, op, c->fd, &e);
}

static void dial(struct conn *c) {
  int on = 1;
  c->fd = socket(AF_INET, SOCK_STREAM, 0);
  if (connect(c->fd, (struct sockaddr *)&target, sizeof target)) {
    perror("connect");
    exit(1);
  }
  setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
  c->at = IDLE;
  watch(c, EPOLL_CTL_ADD, EPOLLIN);
}

static void again(struct conn *c) {
  errors++;
  close(c->fd);
  dial(c);
}

static void push(struct conn *c) {
  while (c->sent < request_length) {
    ssize_t n = send(c->fd, request + c->sent, request_length - c->sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0) {
      if (errno == EAGAIN) watch(c, EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
      return;
    }
    c->sent += (size_t)n;
  }
  watch(c, EPOLL_CTL_MOD, EPOLLIN);
}

static void ask(struct conn *c, uint64_t due) {
  c->at = HEAD;
  c->sent = c->line = 0;
  c->due = due;
  ssize_t n = send(c->fd, request, request_length, MSG_DONTWAIT | MSG_NOSIGNAL);
  c->sent = n < 0 ? 0 : (size_t)n;
  if (c->sent < request_length) push(c);
}

static void finished(struct conn *c) {
  if (measuring) {
    done++;
    if (c->status != 200) bad_status++;
  }
  if (!streaming) sample(c->due);
  c->at = IDLE;
}

/* Bytes of a body: of a stream, its lines. */
static void body(struct conn *c, const char *p, size_t n) {
  if (!streaming) return;
  for (size_t i = 0; i < n; i++) {
    if (p[i] != '\n') {
      if (c->line < sizeof c->text - 1) c->text[c->line++] = p[i];
      continue;
    }
    c->text[c->line] = 0;
    c->line = 0;
    if (strncmp(c->text, "data: {\"t\":", 11)) continue;
    if (!c->seen) seen++;
    c->seen = 1;
    if (measuring) done++;
    sample(strtoull(c->text + 11, 0, 10));
  }
}

static void head(struct conn *c) {
  c->text[c->line] = 0;
  c->status = atoi(c->text + 9);
  char *length = strcasestr(c->text, "\ncontent-length:");
  c->at = strcasestr(c->text, "\ntransfer-encoding: chunked") ? CHUNK_SIZE : SIZED;
  c->left = length ? strtoul(length + 16, 0, 10) : 0;
  c->line = 0;
  if (c->status != 200 && errors + bad_status == 0) fprintf(stderr, "%s\n", c->text);
  if (c->at == SIZED && c->left == 0) finished(c);
}

static void feed(struct conn *c, const char *p, size_t n) {
  while (n > 0 && c->at != IDLE) {
    if (c->at == SIZED || c->at == CHUNK) {
      size_t take = n < c->left ? n : c->left;
      body(c, p, take);
      p += take;
      n -= take;
      c->left -= take;
      if (c->left > 0) continue;
      if (c->at == SIZED) finished(c);
      else c->at = CHUNK_END;
      continue;
    }
    char b = *p++;
    n--;
    if (c->at == HEAD) {
      if (c->line < sizeof c->text - 1) c->text[c->line++] = b;
      if (b == '\n' && c->line >= 4 && !memcmp(c->text + c->line - 4, "\r\n\r\n", 4)) head(c);
    } else if (c->at == CHUNK_SIZE) {
      if (b == '\n') c->at = c->left == 0 ? TRAILER : CHUNK;
      else if (b >= '0' && b <= '9') c->left = c->left * 16 + (size_t)(b - '0');
      else if ((b | 32) >= 'a' && (b | 32) <= 'f') c->left = c->left * 16 + (size_t)((b | 32) - 'a' + 10);
    } else if (b == '\n') {
      /* CHUNK_END or TRAILER; nobody here sends trailers. */
      if (c->at == TRAILER) finished(c);
      else c->at = CHUNK_SIZE;
    }
  }
}

static int compare(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

static uint32_t percentile(double p) {
  return nsamples ? samples[(size_t)((double)(nsamples - 1) * p)] : 0;
}

static void prepare(const char *file, const char *headers, int port) {
  FILE *f = fopen(file, "rb");
  if (!f) exit(2);
  fseek(f, 0, SEEK_END);
  long size = ftell(f);
  rewind(f);
  request = malloc((size_t)size + 8192);
  int n = snprintf(request, 8000, "POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nAccept: application/json\r\n"
    "Content-Type: application/json\r\nUser-Agent: OpenAI/Python 2.8.0\r\nX-Stainless-Lang: python\r\nX-Stainless-OS: Linux\r\n"
    "X-Stainless-Retry-Count: 0\r\n%sContent-Length: %ld\r\n\r\n", port, headers, size);
  request_length = (size_t)n + fread(request + n, 1, (size_t)size, f);
  fclose(f);
}

int main(int argc, char **argv) {
  if (argc < 7) return 2;
  signal(SIGPIPE, SIG_IGN);
  struct rlimit files = {65536, 65536};
  setrlimit(RLIMIT_NOFILE, &files);
  const char *mode = argv[1];
  int hold = !strcmp(mode, "hold"), open_loop = !strcmp(mode, "rate");
  streaming = hold || !strcmp(mode, "sse");
  target = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
  target.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  double seconds = atof(argv[3]);
  count = atoi(argv[4]);
  char headers[4096];
  size_t h = 0;
  for (const char *p = argv[6]; *p && h < sizeof headers - 1; p++) {
    if (p[0] == '\\' && p[1] == 'r') headers[h++] = '\r', p++;
    else if (p[0] == '\\' && p[1] == 'n') headers[h++] = '\n', p++;
    else headers[h++] = *p;
  }
  headers[h] = 0;
  prepare(argv[5], headers, atoi(argv[2]));
  uint64_t gap = open_loop ? (uint64_t)(1e9 / atof(argc > 7 ? argv[7] : "500")) : 0;
  samples = malloc(sizeof *samples * MOST);
  conns = calloc((size_t)count, sizeof *conns);
  poller = epoll_create1(0);
  int timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK);
  struct itimerspec every = {{0, 200000}, {0, 200000}};
  if (!open_loop) every.it_interval.tv_nsec = every.it_value.tv_nsec = 50000000;
  timerfd_settime(timer, 0, &every, 0);
  struct epoll_event e = {.events = EPOLLIN, .data.ptr = 0};
  epoll_ctl(poller, EPOLL_CTL_ADD, timer, &e);
  for (int i = 0; i < count; i++) {
    dial(&conns[i]);
    if (!open_loop) ask(&conns[i], now_ns());
  }
  uint64_t settle = (uint64_t)(1e9 * (argc > 8 ? atof(argv[8]) : 1));
  uint64_t start = now_ns(), steady = 0, due = start;
  static char bytes[262144];
  for (struct epoll_event found[512];;) {
    int n = epoll_wait(poller, found, 512, -1);
    for (int i = 0; i < n; i++) {
      struct conn *c = found[i].data.ptr;
      if (!c) {
        uint64_t fired;
        (void)!read(timer, &fired, sizeof fired);
        continue;
      }
      if (found[i].events & EPOLLOUT) push(c);
      if (!(found[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))) continue;
      ssize_t got = recv(c->fd, bytes, sizeof bytes, MSG_DONTWAIT);
      if (got < 0 && errno == EAGAIN) continue;
      if (got <= 0) again(c);
      else feed(c, bytes, (size_t)got);
      if (c->at == IDLE && !open_loop) ask(c, now_ns());
    }
    uint64_t now = now_ns();
    for (int i = 0; open_loop && due <= now; due += gap, i = 0) {
      while (i < count && conns[i].at != IDLE) i++;
      if (i == count) break;
      ask(&conns[i], due);
    }
    if (!steady && now - start >= settle && (!hold || seen == count)) {
      steady = now;
      puts("steady");
      fflush(stdout);
      measuring = 1;
    }
    if (steady && (double)(now - steady) >= seconds * 1e9) break;
    if (!steady && now - start > 60000000000ull) return fprintf(stderr, "never steady: %d of %d\n", seen, count), 1;
  }
  double took = (double)(now_ns() - steady) / 1e9;
  qsort(samples, nsamples, sizeof *samples, compare);
  printf("{\"done\":%ld,\"seconds\":%.3f,\"errors\":%ld,\"badStatus\":%ld,\"p50\":%u,\"p90\":%u,\"p99\":%u,\"max\":%u}\n", done,
    took, errors, bad_status, percentile(0.5), percentile(0.9), percentile(0.99), percentile(1));
  return 0;
}
