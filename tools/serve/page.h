/* page.h - page.html, embedded by the build. */
#ifndef NB_PAGE_H
#define NB_PAGE_H

#include <stddef.h>

extern const unsigned char nb_page_html[];
extern const size_t        nb_page_size;

#endif
