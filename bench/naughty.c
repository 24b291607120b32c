/*
 * naughty: reads its input and says how long it was; the path of the request makes it sleep, crash, fail, not read,
 * or answer with 1 GiB.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(void) {
  static char buffer[262144];
  const char *path = getenv("Http_Path");
  long long total = 0;
  ssize_t n;
  if (!path) path = "";
  if (!strcmp(path, "/slow")) {
    if (fork() == 0) pause(); /* a grandchild that keeps the output open */
    pause();
  }
  if (!strcmp(path, "/crash")) abort();
  if (!strcmp(path, "/half")) return 3;
  if (!strcmp(path, "/giant")) {
    for (total = 1 << 30; total > 0; total -= n)
      if ((n = write(1, buffer, sizeof buffer)) <= 0) return 1;
    return 0;
  }
  while ((n = read(0, buffer, sizeof buffer)) > 0) total += n;
  printf("%lld\n", total);
  return 0;
}
