/*
 * upstream PORT [any]: on loopback or, with a second argument, on every address. The cheapest HTTP server there is, so
 * that what is measured is what stands in front of it. One thread, epoll, kept-alive connections; takes a body by
 * Content-Length and answers with two bytes. Bad on purpose: /slow never answers, /crash hangs up, /half hangs up
 * within its answer, /giant answers with 1 GiB.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
  char head[16384];
  size_t length;  /* of what is in head */
  long long body; /* bytes still to come */
  char path[32];
};
static struct connection *connections[65536];
static int events_of; /* epoll */
static const char answer[] = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok";
static const char half[] = "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\npart of it";

static const char large[] = "HTTP/1.1 200 OK\r\nContent-Length: 1073741824\r\n\r\n";

static void hang_up(int fd) {
  free(connections[fd]);
  connections[fd] = NULL;
  epoll_ctl(events_of, EPOLL_CTL_DEL, fd, NULL); /* closing alone leaves it there while a child of giant() has it */
  close(fd);
}

/* False, for a connection of its own: a child writes, and can wait for the reader. */
static int giant(int fd) {
  static char zeros[262144];
  if (fork() == 0) {
    long long left = 1 << 30;
    for (int other = 3; other < 4096; other++)
      if (other != fd) close(other);
    ssize_t n = write(fd, large, sizeof large - 1);
    while (n > 0 && left > 0 && (n = write(fd, zeros, sizeof zeros)) > 0) left -= n;
    _exit(0);
  }
  hang_up(fd);
  return 0;
}

/* False when the connection is gone. */
static int respond(int fd) {
  const char *path = connections[fd]->path;
  if (!strncmp(path, "/slow", 5)) return 1;
  if (!strncmp(path, "/giant", 6)) return giant(fd);
  int is_half = !strncmp(path, "/half", 5), is_crash = !strncmp(path, "/crash", 6);
  if (is_half) (void)!write(fd, half, sizeof half - 1);
  if (is_half || is_crash || write(fd, answer, sizeof answer - 1) < 0) {
    hang_up(fd);
    return 0;
  }
  return 1;
}

/* Works off complete heads in the buffer. False when the connection is gone. */
static int parse(int fd) {
  struct connection *c = connections[fd];
  for (;;) {
    char *end = memmem(c->head, c->length, "\r\n\r\n", 4);
    if (!end) break;
    end[2] = 0;
    size_t head = end + 4 - c->head, rest = c->length - head;
    char *path = strchr(c->head, ' '), *length = strcasestr(c->head, "\r\ncontent-length:");
    snprintf(c->path, sizeof c->path, "%s", path ? path + 1 : "");
    c->body = length ? atoll(length + 17) : 0;
    size_t taken = rest < (size_t)c->body ? rest : (size_t)c->body;
    c->body -= taken;
    memmove(c->head, c->head + head + taken, rest - taken);
    c->length = rest - taken;
    if (c->body > 0) return 1;
    if (!respond(fd)) return 0;
  }
  if (c->length < sizeof c->head - 1) return 1;
  hang_up(fd);
  return 0;
}

static void serve(int fd) {
  static char waste[262144];
  struct connection *c = connections[fd];
  ssize_t n = c->body > 0 ? read(fd, waste, c->body < (long long)sizeof waste ? (size_t)c->body : sizeof waste)
                          : read(fd, c->head + c->length, sizeof c->head - 1 - c->length);
  if (n <= 0) {
    hang_up(fd);
  } else if (c->body > 0) {
    c->body -= n;
    if (c->body == 0) respond(fd);
  } else {
    c->length += n;
    parse(fd);
  }
}

int main(int argc, char **argv) {
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(argc > 1 ? atoi(argv[1]) : 3000)};
  address.sin_addr.s_addr = htonl(argc > 2 ? INADDR_ANY : INADDR_LOOPBACK);
  signal(SIGCHLD, SIG_IGN);
  int one = 1, listener = socket(AF_INET, SOCK_STREAM, 0);
  events_of = epoll_create1(0);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, 1024)) {
    perror("upstream");
    return 1;
  }
  struct epoll_event events[256], event = {.events = EPOLLIN, .data.fd = listener};
  epoll_ctl(events_of, EPOLL_CTL_ADD, listener, &event);
  for (;;) {
    int count = epoll_wait(events_of, events, 256, -1);
    for (int i = 0; i < count; i++) {
      int fd = events[i].data.fd;
      if (fd != listener) {
        serve(fd);
        continue;
      }
      if ((fd = accept(listener, NULL, NULL)) < 0 || fd >= 65536) continue;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
      connections[fd] = calloc(1, sizeof **connections);
      event.data.fd = fd;
      epoll_ctl(events_of, EPOLL_CTL_ADD, fd, &event);
    }
  }
}
