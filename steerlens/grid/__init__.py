"""A grid of students: each is trained, asked, compared with its teacher's vector, and stored, and is found again later."""
