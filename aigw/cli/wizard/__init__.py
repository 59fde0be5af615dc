"""`aigw init`: a plan is made, by questions or from flags; then it is carried out, or nothing is."""
